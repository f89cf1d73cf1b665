"""Every command, result, value and error crosses the wire and comes back equal."""

from __future__ import annotations

from math import inf, nan
from typing import Any, get_args

import numpy as np
import Pyro5.serializers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from instrument import errors
from instrument.errors import InstrumentError, Refused, from_plain
from instrument.ledger import Record, record_from_plain
from instrument.settings import Device, Envelope
from instrument.wire import Command, Result, Wait, command_from_plain, command_to_plain, fires
from tests.instrument import values

_MSGPACK = Pyro5.serializers.MsgpackSerializer()


def crossed(plain: Any) -> Any:
    """What arrives at the other end; whatever msgpack can't carry, or carries as something else, shows."""
    assert_plain(plain)
    return _MSGPACK.loads(_MSGPACK.dumps(plain))


def assert_plain(value: Any) -> None:
    assert type(value) in (type(None), bool, int, float, str, list, dict), type(value)
    for part in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        assert_plain(part)
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)


def same(one: BaseModel, other: BaseModel) -> bool:
    """Equal, where NaN equals NaN."""
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize("command", values.COMMANDS, ids=lambda one: one.verb)
def test_commands_cross(command: Command) -> None:
    back = command_from_plain(crossed(command_to_plain(command)))
    assert back == command
    assert type(back) is type(command)


def test_no_command_is_forgotten_here() -> None:
    kinds = get_args(get_args(Command)[0])
    assert {type(command) for command in values.COMMANDS} == set(kinds)
    assert {field for result in values.RESULTS for field in result.model_fields_set} == set(Result.model_fields)


@pytest.mark.parametrize("result", values.RESULTS, ids=lambda one: ",".join(one.model_fields_set) or "none")
def test_results_cross_alone_and_in_a_record(result: Result) -> None:
    assert same(Result.model_validate(crossed(result.model_dump(mode="json"))), result)
    record = Record("done", 1.0, result)
    back = record_from_plain(crossed(record.to_plain()))
    assert (back.state, back.fraction, back.error) == ("done", 1.0, None)
    assert back.result is not None
    assert same(back.result, result)


@pytest.mark.parametrize("value", values.VALUES, ids=lambda one: type(one).__name__)
def test_values_cross(value: BaseModel) -> None:
    assert same(type(value).model_validate(crossed(value.model_dump(mode="json"))), value)


KINDS = [
    kind for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, InstrumentError) and kind is not Refused
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_errors_cross(kind: type[InstrumentError]) -> None:
    error = kind("it is broken", current_a=1e-9, tried=[1, 2], where=None, value=inf)
    back = from_plain(crossed(error.to_plain()))
    assert type(back) is kind
    assert str(back) == str(error)
    assert back.evidence == error.evidence


def test_a_refusal_crosses_with_rule_and_remedy() -> None:
    error = Refused("too far", rule="stage-box", field="stage.x", value=0.1, limit=[0, 0.01], remedy="nearer")
    back = from_plain(crossed(error.to_plain()))
    assert isinstance(back, Refused)
    assert (back.rule, back.remedy, back.evidence) == ("stage-box", "nearer", error.evidence)


def test_evidence_of_any_kind_crosses() -> None:
    """Backends put in what they have at hand; the report of an error must not fail over it."""
    error = InstrumentError(
        "odd", a=np.float32(1.5), b=np.int64(3), c=(1, (2, Device.CBS)), d={1: np.array([1.0, 2.0])}, e=nan,
        f={Device.EDS}, g=np.bool_(True),
    )  # fmt: skip
    back = from_plain(crossed(error.to_plain())).evidence
    assert back["a"] == 1.5
    assert back["b"] == 3
    assert back["c"] == [1, [2, "CBS"]]
    assert list(back["d"]) == ["1"]
    assert back["e"] != back["e"]


def test_an_unknown_symptom_is_still_an_error_of_the_instrument() -> None:
    assert type(from_plain({"symptom": "from the future", "message": "x"})) is InstrumentError
    assert type(from_plain({})) is InstrumentError


@pytest.mark.parametrize(
    "plain",
    [
        None, [], "set_beam", {}, {"verb": "explode"}, {"verb": "wait", "seconds": nan},
        {"verb": "wait", "seconds": -1}, {"verb": "wait", "seconds": inf},
        {"verb": "wait", "seconds": 1, "hurry": True},
        {"verb": "move_stage", "to": {"x": nan}}, {"verb": "insert", "device": "EBSD"},
        {"verb": "acquire", "scan": {**values.SCAN.model_dump(mode="json"), "detectors": []}},
    ],
)  # fmt: skip
def test_what_is_no_command_is_refused(plain: object) -> None:
    with pytest.raises(ValidationError):
        command_from_plain(plain)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0))
def test_numbers_cross_bit_by_bit(seconds: float) -> None:
    back = command_from_plain(crossed(command_to_plain(Wait(seconds=seconds))))
    assert isinstance(back, Wait)
    assert back.seconds == seconds


def test_what_fires_is_what_puts_a_beam_on_the_sample() -> None:
    verbs = {command.verb for command in values.COMMANDS if fires(command)}
    assert verbs == {"acquire", "acquire_eds", "tune", "pattern"}


@pytest.mark.parametrize(
    "changes",
    [
        {"max_pattern_s": nan}, {"max_pattern_s": 0.0}, {"max_pattern_s": inf}, {"density_max_a_per_m2": nan},
        {"doses": [{"area": "face", "charge_c": nan, "box": [0, 0, 1, 1]}]},
        {"doses": [{"area": "face", "charge_c": 1, "box": [nan, 0, 1, 1]}]},
        {"poses": [{"name": "mill", "r": nan, "t": 0}]},
        {"poses": [{"name": "mill", "r": 0, "t": 0, "tolerance_rad": inf}]},
        {"beams": [{"beam": "ion", "voltage_v": nan, "currents_a": [1e-9]}]},
        {"beams": [{"beam": "ion", "voltage_v": 30e3, "currents_a": [nan]}]},
        {"stage_box": {"x": [nan, 1], "y": [0, 1], "z": [0, 1], "t": [0, 1]}},
    ],
)  # fmt: skip
def test_an_envelope_has_no_holes(changes: dict[str, Any]) -> None:
    """A limit that is not a number would let everything pass, for nothing compares with it."""
    with pytest.raises(ValidationError):
        Envelope.model_validate({**values.ENVELOPE.model_dump(mode="json"), **changes})


def test_a_job_does_not_run_backwards() -> None:
    with pytest.raises(ValidationError, match="cannot end before"):
        values.JOB.replace(from_fraction=0.8, to_fraction=0.2)
