"""What the verbs are done on: the virtual machine's condition, block and clock, kept durable; and what befalls it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instrument.errors import ConnectionLost, TimedOut, Unsafe
from instrument.settings import Beam, BeamState, Device, State
from simulator import chamber, faults
from simulator.block import new_block
from simulator.clock import SimulatedClock
from simulator.condition import Condition, description, fresh
from simulator.faults import Moved, Struck
from simulator.milling import true_rates
from simulator.options import Options
from simulator.pictures import Pictures
from simulator.saving import Store


class Machine:
    """A virtual machine at work, one action at a time.

    Parameters
    ----------
    options : what it is and how it errs
    state : folder that holds it; what was saved there goes on. None: it lasts as long as the object
    """

    def __init__(self, options: Options, state: Path | None = None) -> None:
        self.options = options
        self.description = description(options.seed)
        self._store = Store(state) if state is not None else None
        opened = time.time()  # of the wall: no instrument's clock went on while no process held it
        saved = self._store.load(options) if self._store is not None else None
        self._now, self.block = saved if saved is not None else (fresh(self.description), new_block(options))
        away = max(0.0, opened - self._now.wall_s) * (options.pace or 1.0) if self._now.wall_s else 0.0
        # a paced clock follows the wall; one that is stepped stands still when nobody is there and nothing runs
        self.clock: SimulatedClock = SimulatedClock(self._now.time_s + (away if options.pace else 0.0), options.pace)
        self.rates = true_rates(options.seed, options.rates)
        self._pictures = Pictures(options, self.block, state)
        self._verb = threading.RLock()
        #: seconds for which nobody held what was saved, None: nothing was
        self._away_s: float | None = away if saved is not None else None

    def _read(self) -> State:
        time_s = self.clock.now()
        now = chamber.warmed(self._now, time_s)
        quiet = now.blanked and not now.patterning
        return State(
            time_s=time_s,
            stage=chamber.read_stage(self.options, now, time_s),
            stage_homed=now.homed,
            electron=self._beam_state(Beam.ELECTRON, now, time_s),
            ion=self._beam_state(Beam.ION, now, time_s),
            devices={device: device in now.inserted for device in self.description.devices},
            gases=dict(now.gases),
            pressure_pa=chamber.pressure(now, time_s),
            patterning=now.patterning,
            safe=quiet and Device.NEEDLE not in now.inserted and not any(g.valve_open for g in now.gases.values()),
        )

    @contextmanager
    def _action(self, what: Moved = "call") -> Iterator[None]:
        """One verb at a time; each has a number of its own, and what it changed is durable when it ends."""
        with self._verb:
            self.clock.stopped.clear()
            warm = chamber.warmed(self._now, self.clock.now())
            self._now = warm.replace_fast(counter=self._now.counter + 1)
            try:
                self._strike(what)
                yield
                if (hangs := self._spent("rpc-timeout")) is not None:
                    seconds = faults.hang_s(hangs)
                    self.clock.wait(seconds)
                    msg = f"the microscope's server has not answered for {seconds:.0f} s; what was asked may be done"
                    raise TimedOut(msg, waited_s=seconds)
            finally:
                self._save()

    def _strike(self, what: Moved = "time") -> None:
        """Let the faults happen that are due by now, and those that an actuation of `what` draws."""
        options, time_s = self.options, self.clock.now()
        due = faults.due(options.seed, options.fault, options.faults, self._now.looked_s, time_s)
        if what != "time":
            due += faults.moved(options.seed, options.faults, self._now.counter, what)
        for name in due:
            self._now = faults.struck(options.seed, self._now, name, time_s)
        if what == "deposit" and self._spent("fiducial-covered") is not None:
            self.block.bury_marks(lambda _x, _z: faults.BURIED_M)
        self._now = self._now.replace_fast(looked_s=time_s)
        if self._back_again():
            msg = "the microscope's computer has started again: its beams are off, its stage is not homed"
            raise ConnectionLost(msg)

    def _back_again(self) -> bool:
        """Wait until a computer that starts again is back; tell whether there was anything to wait for."""
        gone = faults.active(self._now, "reboot")
        if gone is None:
            return False
        self.clock.wait(gone.at_s + faults.away_s(gone) - self.clock.now())
        if self.clock.now() < gone.at_s + faults.away_s(gone) - 1e-6:
            msg = "the microscope's computer is starting again; its beams are off, its needle stays where it is"
            raise Unsafe(msg)
        self._mended("reboot")
        return True

    def _mended(self, *names: str) -> None:
        self._now = faults.over(self._now, *names)

    def _spent(self, name: str) -> Struck | None:
        """Return a fault that spoils what is in hand, and only that; None for none."""
        found = faults.active(self._now, name)
        if found is not None:
            self._mended(name)
        return found

    def _coat_cbs(self, charge_c: float) -> None:
        """Let what an ion beam sputters settle on CBS where it was left in."""
        if Device.CBS in self._now.inserted:
            self._now = self._now.replace_fast(coated_c=self._now.coated_c + charge_c)

    def _save(self) -> None:
        self._now = self._now.replace_fast(time_s=self.clock.now(), wall_s=time.time())
        if self._store is not None:
            self._now = self._store.save(self.options, self._now, self.block)

    def _blank(self) -> None:
        self._now = self._now.replace_fast(blanked=True, patterning=False, running=None)

    def _current(self, beam: Beam) -> float:
        return chamber.current(self.options, self._now, beam, self.clock.now())

    def _beam_state(self, beam: Beam, now: Condition, time_s: float) -> BeamState:
        settings = now.beam(beam)
        return BeamState(
            settings=settings, source_on=bool(settings.source_on), blanked=now.blanked,
            measured_current_a=chamber.current(self.options, now, beam, time_s),
        )  # fmt: skip

    def _shut(self, names: tuple[str, ...]) -> None:
        """Shut valves; the gas leaves, the sample drifts, and the film laid is let into the pores."""
        if not names:
            return
        gases = {n: g.replace(valve_open=False) if n in names else g for n, g in self._now.gases.items()}
        time_s = self.clock.now()
        drift = chamber.disturbed(self.options, self._now, time_s)
        self._now = self._now.replace_fast(gases=gases, shut_at_s=time_s, drift=drift)

    def _use_gas(self, seconds: float) -> None:
        gases = {n: g.replace(open_s=g.open_s + seconds) if g.valve_open else g for n, g in self._now.gases.items()}
        self._now = self._now.replace_fast(gases=gases)
