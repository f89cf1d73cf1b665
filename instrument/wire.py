"""What crosses the network: one command per verb, its result, and both as plain values and back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from instrument.frame import FrameRef
from instrument.settings import (
    Beam,
    BeamSettings,
    Device,
    Done,
    EdsScan,
    GasSetting,
    Model,
    PatternJob,
    Recovery,
    Scan,
    StagePosition,
    State,
    Tune,
    Tuning,
)


class SetBeam(Model):
    """`Microscope.set_beam`."""

    verb: Literal["set_beam"] = "set_beam"
    beam: Beam
    settings: BeamSettings


class MoveStage(Model):
    """`Microscope.move_stage`."""

    verb: Literal["move_stage"] = "move_stage"
    to: StagePosition


class Insert(Model):
    """`Microscope.insert`."""

    verb: Literal["insert"] = "insert"
    device: Device
    position: str | None = None


class Retract(Model):
    """`Microscope.retract`."""

    verb: Literal["retract"] = "retract"
    device: Device


class SetGas(Model):
    """`Microscope.set_gas`."""

    verb: Literal["set_gas"] = "set_gas"
    gas: str
    setting: GasSetting


class Acquire(Model):
    """`Microscope.acquire`; its result is a FrameRef into the server's spool."""

    verb: Literal["acquire"] = "acquire"
    scan: Scan


class AcquireEds(Model):
    """`Microscope.acquire_eds`; its result is a FrameRef into the server's spool."""

    verb: Literal["acquire_eds"] = "acquire_eds"
    scan: EdsScan


class TuneBeam(Model):
    """`Microscope.tune`."""

    verb: Literal["tune"] = "tune"
    routine: Tune
    scan: Scan


class WritePattern(Model):
    """`Microscope.pattern`, cut by the server into pieces of at most `max_pattern`, each ending blanked."""

    verb: Literal["pattern"] = "pattern"
    job: PatternJob


class Recover(Model):
    """`Microscope.recover`."""

    verb: Literal["recover"] = "recover"
    what: Recovery


class Wait(Model):
    """Let the instrument's time pass, blanked."""

    verb: Literal["wait"] = "wait"
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


Command = Annotated[
    SetBeam | MoveStage | Insert | Retract | SetGas | Acquire | AcquireEds | TuneBeam | WritePattern | Recover | Wait,
    Field(discriminator="verb"),
]
_COMMAND: TypeAdapter[Command] = TypeAdapter(Command)


class Result(Model):
    """What a command gave: exactly one field is set, by verb (none for insert, retract and wait)."""

    beam: BeamSettings | None = None
    stage: StagePosition | None = None
    gas: GasSetting | None = None
    frame: FrameRef | None = None
    tuning: Tuning | None = None
    done: Done | None = None
    state: State | None = None


def command_to_plain(command: Command) -> dict[str, Any]:
    """Return the command as None, bool, int, float, str, list and dict only."""
    return command.model_dump(mode="json")


def command_from_plain(plain: object) -> Command:
    """Return the command that `command_to_plain` made; pydantic's ValidationError where it is none."""
    return _COMMAND.validate_python(plain)


def fires(command: Command) -> bool:
    """Tell whether the command puts a beam on the sample: such commands go through the ledger."""
    return isinstance(command, Acquire | AcquireEds | TuneBeam | WritePattern)
