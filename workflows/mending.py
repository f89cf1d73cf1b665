"""What a run mends by itself before it does an act again: so often, and no more, before a person is asked.

Before anything is mended the instrument is made safe: a source may die with the gas flowing. Nothing is done again on
suspicion: after mending the act is settled by the ledger as after any interruption, what a mark or a picture told is
forgotten, and the first beam needs source, current and fiducial as after a restart.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from instrument.errors import DeviceFault, InstrumentError
from instrument.microscope import Microscope
from instrument.process import LIT_BELOW_PA
from instrument.settings import Beam, BeamSettings, Recovery
from workflows.alignment import Aligner
from workflows.pointing import same_point
from workflows.policy import action, symptom_of

log = logging.getLogger(__name__)

#: For one act, and for one symptom in a run, so often.
PER_ACT, PER_RUN = 3, 12
#: Before an act is tried again, s; after a source was lit, until its current is steady (physics.md 7: 5 to 10 min), s.
RETRY_S, WARM_UP_S = 60.0, 600.0


class Mender:
    """Mends what the policy lets it mend, on one instrument.

    Parameters
    ----------
    instrument, aligner : what is mended, and whose alignment is forgotten then
    note : keeps an event in the journal
    points : voltages (V) and currents (A) of the ion beam that the run may use whatever it does
    earlier : the symptoms that were mended in this run before
    """

    def __init__(
        self,
        instrument: Microscope,
        aligner: Aligner,
        note: Callable[[str, Any], object],
        points: Sequence[tuple[float, float]],
        earlier: Iterable[str] = (),
    ) -> None:
        self._instrument = instrument
        self._aligner = aligner
        self._note = note
        self._points = points
        self._count = Counter(earlier)
        self._tried: Counter[str] = Counter()

    def mend(self, key: str, error: InstrumentError) -> bool:
        """Do what mends an error of an act; False where a person must look: nothing was done then."""
        symptom = symptom_of(error)
        what = action(symptom)
        if what not in ("retry", "recover") or self._tried[key] >= PER_ACT or self._count[symptom] >= PER_RUN:
            return False
        self._tried[key] += 1
        self._count[symptom] += 1
        log.warning("%s: %s; %s (%d of %d)", key, error.message, what, self._tried[key], PER_ACT)
        try:
            self._safe()
            done = self._recover(symptom, again=self._tried[key] > 1) if what == "recover" else self._wait()
        except InstrumentError as failed:
            log.error("%s could not be mended: %s", symptom, failed.message)
            self._note("mended", {"key": key, "symptom": symptom, "done": "", "failed": failed.message})
            return False
        self._aligner.forget()
        self._note("mended", {"key": key, "symptom": symptom, "done": done, "why": error.message})
        return True

    # -- private ------------------------------------------------------------------------------------------------------

    def _safe(self) -> None:
        """Make safe; where a needle does not move, once more after a while."""
        try:
            self._instrument.make_safe()
        except DeviceFault as error:
            log.warning("making safe: %s; once more", error.message)
            self._wait()
            self._instrument.make_safe()

    def _wait(self) -> str:
        self._instrument.clock.wait(RETRY_S)
        return f"waited {RETRY_S:.0f} s"

    def _recover(self, symptom: str, *, again: bool) -> str:
        if symptom == "vacuum-recovered":
            self._instrument.recover(Recovery.PUMP)
            return "pumped"
        if symptom == "current-off" and not again and self._instrument.state().ion.source_on:
            return self._set_again()
        return self._light()

    def _set_again(self) -> str:
        """Choose another aperture; the act's own set-up chooses the right one again."""
        now = self._instrument.state().ion.settings
        here = (now.voltage_v or 0.0, now.current_a or 0.0)
        others = [one for one in self._points if not same_point(one, here)]
        if not others:
            return self._light()
        voltage, current = others[0]
        self._instrument.set_beam(Beam.ION, BeamSettings(voltage_v=voltage, current_a=current))
        return "the current was set again"

    def _light(self) -> str:
        done = "relit"
        if self._instrument.state().pressure_pa > LIT_BELOW_PA:
            self._instrument.recover(Recovery.PUMP)
            done = "pumped and relit"
        self._instrument.recover(Recovery.RELIGHT_SOURCE)
        self._instrument.clock.wait(WARM_UP_S)
        return done
