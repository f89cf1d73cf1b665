"""A run in hand: its server and lease, its segmentation core, its progress on the terminal, its results at the end."""

from __future__ import annotations

import logging
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from instrument import durable
from instrument.durable import FileLock
from instrument.errors import InstrumentError
from instrument.frame import FrameRef
from instrument.settings import Description
from workflows import results, showing
from workflows.amendments import all_amendments, amended, for_the_guard
from workflows.envelope import envelope
from workflows.evidence import Labels
from workflows.follower import ELSEWHERE, NO_MODEL, Follower, core_command
from workflows.handle import Telling
from workflows.handover import Change, Choice
from workflows.journal import Journal
from workflows.launch import is_simulator, remote_for, state_folder
from workflows.live import Live
from workflows.plan import Plan, plan
from workflows.recipe import Recipe
from workflows.run import Run, forget_request, state_of
from workflows.sites import TaughtSite, layout_for, site_for
from workflows.soundness import set_aside_damaged
from workflows.store import RunFolder
from workflows.terminal import DONE, STOPPED, Wrong, console

log = logging.getLogger(__name__)

#: latest.png is drawn again after this long at the earliest, s: a slice takes minutes, a rehearsed one a second.
SHOW_EVERY_S = 5.0
#: What is said of what a person has changed since a run left the microscope.
_CHOSEN: dict[Choice, str] = {
    "adopt": "adopted: what was set by eye stays",
    "restore": "restored: what was set by eye is set back as the run left it; `kintsugi resume --adopt` keeps it",
}
#: The last labels are waited for at most so long, s.
_LABELS_S = 600.0


def with_its_lists(journal: Journal, description: Description) -> Description:
    """Return a description with the lists of currents that a run began with: what it wrote must be found again.

    They decide with which currents films are laid, and an instrument comes to know more of them in time.
    """
    kept = journal.meta("currents")
    if kept is None:
        kept = description.model_dump(mode="json", include={"ion_currents_a", "assumed_currents"})
        journal.set_meta("currents", kept)
    return description.replace(**kept)


class Session:
    """Everything around a `Run`; a context manager that lets go of it all.

    Parameters
    ----------
    folder, journal, recipe : the run
    model : folder of the segmentation model, "package" for our own, "none" for no labels, "elsewhere" where
        `kintsugi follow` labels on another machine
    hands : whether what a person changed meanwhile is adopted or restored; None: asked where there is a terminal
    alone : begun by a supervisor, so that the run stays armed only for as long as a person has armed it, and asks
        nobody
    """

    def __init__(
        self,
        folder: RunFolder,
        journal: Journal,
        recipe: Recipe,
        *,
        model: str = "package",
        hands: Choice | None = None,
        alone: bool = False,
    ) -> None:
        self.folder = folder
        self.journal = journal
        self.recipe = recipe
        self._model = model
        journal.set_meta("model", model)  # who resumes goes on with it
        self._hands = hands
        self._alone = alone
        self._remote: Any = None
        self._follower: Follower | None = None
        self._live = Live(console())
        self._plan: Plan | None = None
        self._virtual = False
        self._run: Run | None = None
        self._sliced: tuple[int, float] | None = None
        self._newest = ""
        self._last: dict[str, float] | None = None
        self._shown = -SHOW_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._follower is not None:
            self._follower.close(0.0)
        if self._remote is not None:
            self._remote.close()

    def work(self, until: str | None = None) -> int:
        """Run, or go on with, the recipe; returns the exit code of a run that ended well.

        One that is done gets its results again, if it died while they were made. Raises what `Run.go` raises, after the
        instrument is safe and the summary is written. The run is locked all the while; AlreadyLocked where another
        process has it.
        """
        with FileLock(self.folder.lock):
            if not self.folder.supervised:
                self.folder.answered()  # of a process before this one; a night keeps what was asked since it began
            try:
                return self._work(until)
            finally:
                forget_request(self.folder, self.journal)  # it came while the results were made

    # -- private ------------------------------------------------------------------------------------------------------

    def _work(self, until: str | None) -> int:
        if self._model != NO_MODEL:
            core = core_command(self._model, self.folder.labels)
            self._follower = Follower(core, log_file=self.folder.root / "core.log", far=self._model == ELSEWHERE)
            self._follower.start()  # it loads its network while the server builds the instrument
        self._set_aside_damaged()
        if state_of(self.journal) == "done":
            self._results_if_room()
            return DONE
        url = str(self.journal.meta("url"))
        state = state_folder(self.folder, url, self.journal.meta("instrument_state"))
        if state != self.folder.instrument:
            self.journal.set_meta("instrument_state", str(state))
        self._remote = remote_for(state, url, self.journal.run_id)
        description = with_its_lists(self.journal, self._remote.describe())
        self._virtual = description.virtual
        if description.virtual and not is_simulator(str(self.journal.meta("url"))):
            self._live.say("VIRTUAL: a simulated microscope")
        known = description.model_dump(mode="json", include={"model", "virtual", "maps_by"})
        self.journal.set_meta("instrument", known)
        room = self.folder.free_bytes() + self.folder.written_bytes()  # the plan is the whole run's
        planned = plan(self.recipe, description, free_bytes=room, options=False)
        if planned.problems:
            raise Wrong("\n".join(planned.problems))
        self._plan = planned
        self.journal.set_meta("plan", planned.model_dump(mode="json"))
        if not self._alone:
            armed = datetime.now().astimezone() + timedelta(seconds=planned.armed_s)
            self.journal.set_meta("armed_until", armed.isoformat(timespec="seconds"))
        ahead = amended(self.recipe, for_the_guard(all_amendments(self.journal)))
        more = planned if ahead == self.recipe else plan(ahead, description, options=False)
        site = self._site(description)
        self._remote.claim(envelope(self.journal.run_id, ahead, layout_for(ahead, site), more, description))
        if self.journal.meta("clock_start") is None:
            self.journal.set_meta("clock_start", self._remote.state().time_s)
        self._run = Run(
            self.folder, self.journal, self.recipe, planned, self._remote, description, self._follower,
            told=self._tell, until=until, choose=self._choose, site=site, alone=self._alone,
        )  # fmt: skip
        try:
            with self._live:
                ended = self._run.go()
        finally:
            if self._run.state != "new":
                self._results_if_room()
        return DONE if ended == "done" else STOPPED

    def _set_aside_damaged(self) -> None:
        for name in set_aside_damaged(self.folder, self.journal):
            self._live.say(f"{name} is damaged or missing; it is set aside, and the run goes on without it")

    def _site(self, description: Description) -> TaughtSite | None:
        """Return the taught site; a run keeps the one it began on, and one that began on none keeps to that."""
        kept = self.journal.meta("site")
        if kept is None:
            taught = site_for(self.recipe, description)
            kept = {} if taught is None else taught.model_dump(mode="json")
            self.journal.set_meta("site", kept)
        return TaughtSite.model_validate(kept) if kept else None

    def _choose(self, found: list[Change]) -> Choice:
        """Show what a person has changed, and ask what becomes of it; alone, or without a terminal, it is restored."""
        self._live.say("changed since the run left the microscope:")
        for one in found:
            self._live.say(f"  {one}")
        if self._hands is None and not self._alone and sys.stdin.isatty() and console().is_terminal:
            self._hands = "adopt" if self._live.ask("adopt what was set by eye?") else "restore"
        choice = self._hands or "restore"
        self._live.say(_CHOSEN[choice])
        return choice

    def _tell(self, telling: Telling, done: str | None) -> None:
        left = self._seconds_left(telling)
        self._live.update(
            telling.step, doing=telling.doing, slice_k=telling.slice_k, slice_n=telling.slice_n or None,
            seconds_left=left, fractions=self._fractions(),
        )  # fmt: skip
        if done is not None and time.monotonic() - self._shown >= SHOW_EVERY_S:
            self._show(telling.step, left)
            self._shown = time.monotonic()

    def _fractions(self) -> dict[str, float] | None:
        """Return the phase fractions of the newest slice that has labels, None while none has."""
        names = self.folder.label_names()
        if names and names[-1] != self._newest:
            numbers = self.folder.numbers(names[-1])
            if numbers is not None:
                self._newest, self._last = names[-1], dict(numbers["phase_fractions"])
        return self._last

    def _seconds_left(self, telling: Telling) -> float | None:
        """Return the instrument's time left (s): by the plan until slicing, then by what slices really take."""
        clock = self._run.clock_s if self._run is not None else None
        if self._plan is None or clock is None:
            return None
        k, n = telling.slice_k, telling.slice_n
        if k < 1 or n < 1:
            gone = clock - float(self.journal.meta("clock_start", clock))
            return max(0.0, self._plan.prelude_s - gone) + self._plan.slicing_s
        if self._sliced is None:
            self._sliced = (k, clock)
        first, began = self._sliced
        each = self._plan.slicing_s / n if k == first else (clock - began) / (k - first)
        return each * (n - k + 1)

    def _show(self, step: str, left: float | None) -> None:
        slicing = self.recipe.slicing
        refill = slicing.refill if slicing is not None else None
        showing.show(
            self.folder, self.journal, title=self.recipe.name, virtual=self._virtual, step=step,
            planned=self._plan.images_planned if self._plan is not None else 0, seconds_left=left,
            threshold=refill.when if refill is not None else None,
        )  # fmt: skip

    def _label_the_rest(self) -> None:
        """Have the slices labelled that have no labels; when all is done, once more with those on both sides."""
        self._virtual = bool((self.journal.meta("instrument") or {}).get("virtual", False))
        evidence = Labels(self.folder, self._follower, self.recipe.fillable)
        refilled = {int(row["after_slice"]) for row in results.fill_rows(self.journal)}
        frames = {
            int(act.key.split("/")[1]): FrameRef.model_validate(act.result)
            for act in self.journal.acts("slice/", kind="frame")
            if act.key.endswith("/image") and act.has_outcome
        }
        frames = {k: frame for k, frame in frames.items() if (self.folder.root / frame.name).exists()}
        beside = {k: (None if k - 1 in refilled else frames.get(k - 1)) for k in frames}
        for k, frame in frames.items():
            evidence.submit(f"s{k:04d}", frame, beside[k])
        if state_of(self.journal) != "done":
            return  # whoever stopped or held the run waits for it
        for k, frame in frames.items():  # a second look, with the slices on both sides; those given live are kept
            after = None if k in refilled else frames.get(k + 1)
            evidence.finish(f"s{k:04d}", frame, beside[k], after)

    def _results_if_room(self) -> None:
        with durable.if_room(f"the results, which `kintsugi resume {self.folder.root}` makes later"):
            self._results()

    def _results(self) -> None:
        """Have the last labels made; write summary, volume, report; name the files."""
        self._set_aside_damaged()
        self._label_the_rest()
        missing = [] if self._follower is None else self._follower.close(max(_LABELS_S, self._follower.patience_s()))
        if missing:
            log.warning("no labels for %s", ", ".join(missing))
        self._show(state_of(self.journal), None)
        made = [self.folder.recipe, self.folder.journal, self.folder.slices, self.folder.labels]
        summary = results.summarise(self.folder, self.journal)
        self.folder.write_summary(summary, virtual=self._virtual)
        made.append(self.folder.summary)
        made += self._volume_and_report()
        made += [path for path in (self.folder.latest, self.folder.index) if path.exists()]
        self._live.say(
            f"{summary['slices_acquired']} slices, {summary['slices_labelled']} labelled, "
            f"{summary['infiltrations']} fills; the run is {summary['state']}"
        )
        for path in made:
            self._live.say(f"  {path}")

    def _volume_and_report(self) -> list[Path]:
        from workflows.reporting import write_report, write_volume

        made = []
        for write in (write_volume, write_report):
            try:
                found = write(self.folder, self.journal)
            except (InstrumentError, OSError, ValueError) as error:
                log.warning("%s: %s", write.__name__, error)
                self._live.say(f"  {write.__name__} failed: {error}; `kintsugi report {self.folder.root}` tries again")
            else:
                made += [] if found is None else [found]
        return made
