"""Run: the steps of a recipe through the journal on one instrument, until done, stopped, held or failed; and resumed.

To resume, every step runs again from the top: acts with an outcome return it, the first one without is settled and the
work goes on. However it ends, the instrument is left safe.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from instrument import durable
from instrument.errors import BadData, InstrumentError, NoRoom, Refused, Stopped
from instrument.frame import Frame, FrameRef
from instrument.ledger import Record
from instrument.settings import BeamSettings, Description, StagePosition
from instrument.wire import Command, Result, WritePattern
from workflows import heartbeat
from workflows.acts import Acts, Held, Interrupted
from workflows.adopting import worn
from workflows.alignment import Aligner
from workflows.amendments import asked
from workflows.ensure import Stood
from workflows.evidence import Labels
from workflows.follower import Follower
from workflows.handle import Handle, Telling
from workflows.handover import BY_HAND, SOURCE_LIT, Change, Choice
from workflows.health import whole
from workflows.journal import Journal, ReplayMismatch
from workflows.mending import Mender
from workflows.plan import Plan
from workflows.policy import action, symptom_of
from workflows.recipe import Adopt, Block, ElementMap, Fiducial, Finish, Infiltrate, Protect, Recipe, Slice
from workflows.salvage import missing_patterns
from workflows.sites import TaughtSite, layout_for
from workflows.steps import adopt, block, currents, finish, infiltrate, protect, site, slicing
from workflows.store import WINDOW, Request, RunFolder
from workflows.taking_back import how_left, take_back
from workflows.untouched import AnotherHand

log = logging.getLogger(__name__)

#: Which changes of a run's state there are; a run that is done stays done.
CHANGES: dict[str, tuple[str, ...]] = {
    "new": ("running",),
    "running": ("running", "done", "stopped", "paused", "held", "failed"),
    "stopped": ("running",),
    "paused": ("running",),
    "held": ("running",),
    "failed": ("running",),
    "done": (),
}
#: What becomes of a run that is held if nobody comes.
STAYS = "it stays safe, beams blanked and gas shut, and does nothing more"
#: A request is honoured at its own boundary and at every larger one; a piece of cap or block is as large as a fill.
_RANK = {"now": 0, "cut": 0, "slice": 1, "before a fill": 1, "last slice": 1, "fill": 2}
_WHERE = {"before a fill": "before a fill", "last slice": "after the last slice"}
_WATCH_S = 0.5
#: A focus is good for so long after a session's last act, s: then its run would have had it still.
FOCUS_KEPT_S = 3600.0

Told = Callable[[Telling, str | None], None]


def forget_request(folder: RunFolder, journal: Journal) -> None:
    """Forget what was asked of a run that has ended, unless it may be resumed by itself: then that stands."""
    if state_of(journal) not in ("failed", "running"):
        folder.answered()


def state_of(journal: Journal) -> str:
    """Return where a run stands by its journal: one of `CHANGES`."""
    events = journal.events(kind="state")
    return str(events[-1].data["to"]) if events else "new"


class Run:
    """One run in its folder.

    Parameters
    ----------
    folder, journal, recipe, plan : what is done
    instrument : the remote microscope, its lease claimed; both `Microscope` and what acts need
    description : of the instrument
    follower : the segmentation core's process, None to go without labels
    told : told where the run stands, and the name of each slice that has come
    site : where the block is, as it was taught; None: in the middle of a virtual holder
    alone : resumed by itself, with nobody who has looked at the instrument
    choose : asked, where the instrument stands otherwise than the run left it, whether that is adopted or restored
    """

    def __init__(
        self,
        folder: RunFolder,
        journal: Journal,
        recipe: Recipe,
        plan: Plan,
        instrument: Any,
        description: Description,
        follower: Follower | None,
        *,
        told: Told,
        until: str | None = None,
        choose: Callable[[list[Change]], Choice] = lambda _changes: "restore",
        site: TaughtSite | None = None,
        alone: bool = False,
    ) -> None:
        self.folder = folder
        self.journal = journal
        self.recipe = recipe
        self.plan = plan
        self.instrument = instrument
        self.description = description
        self.follower = follower
        self.until = until
        self._told = told
        self._choose = choose
        self._site = site
        self._alone = alone
        self._asked: Request | None = None
        self._milling = threading.Event()
        self._ended = threading.Event()
        self._acts: Acts | None = None
        self._aligner: Aligner | None = None
        self._slice_began: tuple[float, float] | None = None
        self._doing = ""

    @property
    def state(self) -> str:
        """Where the run stands."""
        return state_of(self.journal)

    def go(self) -> str:
        """Work until the end; returns the state then: done or stopped (at `until`). The caller holds the run's lock.

        Raises
        ------
        Interrupted : somebody asked for a stop or a pause
        Held : a person must look
        InstrumentError : it failed, and was made safe
        """
        began = time.monotonic()
        with self.folder.logging():
            left = how_left(self.journal, self._load)
            self._change("running", {"pid": os.getpid(), "alone": self._alone})
            watch = threading.Thread(target=self._watch, name="requests", daemon=True)
            watch.start()
            try:
                with self._signals():
                    if left is not None:
                        take_back(left, self.journal, self.instrument, self._choose)
                    ended = self._steps()
                self._change(ended)
            except Interrupted as error:
                self._safe(self._leave() if self._window_over else None)
                self._change("paused" if error.pause else "stopped", {"why": error.message})
                raise
            except ReplayMismatch as error:
                self._safe()
                self._change("held", {"why": str(error)})
                raise
            except InstrumentError as error:
                self._safe(error.evidence["left"] if isinstance(error, AnotherHand) else None)
                held = isinstance(error, Held) or action(symptom_of(error)) != "stop"
                with durable.if_room("how it ended"):
                    self._change("held" if held else "failed", {"why": error.message, "symptom": error.symptom})
                if held and not isinstance(error, Held):
                    raise Held(error.message, **{**error.evidence, "symptom": error.symptom}) from error
                raise
            except KeyboardInterrupt:
                self._safe()
                self._change("stopped", {"why": "Ctrl-C"})
                raise
            except Exception as defect:
                self._safe()
                if durable.no_room(defect):
                    msg = f"the disk is full: {defect}; make room, then `kintsugi resume {self.folder.root}`"
                    with durable.if_room("how it ended"):
                        self._change("held", {"why": msg, "symptom": NoRoom.symptom})
                    raise Held(msg, symptom=NoRoom.symptom) from defect
                self._change("failed", {"why": f"a defect of the program: {type(defect).__name__}: {defect}"})
                log.exception("a defect")
                raise
            finally:
                self._ended.set()
                watch.join(5.0)
                forget_request(self.folder, self.journal)
                with durable.if_room("how long it took"):
                    self.journal.note("session", {"wall_s": time.monotonic() - began})
        return ended

    # -- steps --------------------------------------------------------------------------------------------------------

    def _steps(self) -> str:
        handle = self._handle()
        try:
            return self._each(handle)
        except Interrupted:
            if self._window_over:
                self._last_pictures(handle)
            raise

    def _each(self, handle: Handle) -> str:
        site_first: list[tuple[str, Any]] = [("site", None), *self.recipe.named_steps()]
        for name, settings in site_first:
            handle.telling.step = name
            self.journal.note("step", name)
            self._copy_journal()
            handle.tell()
            self._step(handle, name, settings)
            if name == self.until:
                self._safe()
                return "stopped"
        return "done"

    def _step(self, handle: Handle, name: str, settings: Any) -> None:
        if settings is None:
            site.run(handle)
            currents.align(handle)
        elif isinstance(settings, Protect):
            protect.run(handle, settings)
        elif isinstance(settings, Adopt):
            adopt.run(handle, settings)
        elif isinstance(settings, Block):
            block.run(handle, settings)
        elif isinstance(settings, Slice):
            slicing.run(handle, settings, self.plan.images_planned)
        elif isinstance(settings, Infiltrate):
            infiltrate.run(handle, name, settings)
        elif isinstance(settings, ElementMap):
            self._element_map(handle, name, settings)
        else:
            finish.run(handle, settings)

    @staticmethod
    def _element_map(handle: Handle, name: str, settings: ElementMap) -> None:
        """Take an element map of the face as it stands, and a picture with labels to hold it against."""
        slicing_settings = handle.recipe.slicing
        if handle.planes is None or slicing_settings is None:
            msg = f"{name} needs a face and a slice step that says how it is looked at"
            raise Held(msg, step=name)
        image, plane = slicing_settings.image, handle.planes.target
        handle.tell("element map")
        handle.evidence.submit(name, handle.picture(f"{name}/image", "pairs", name, image, plane))
        handle.element_map(f"{name}/map", name, settings, image, plane)

    @property
    def clock_s(self) -> float | None:
        """The instrument's clock (s) when it was last looked at."""
        return self._acts.clock_s if self._acts is not None else None

    def _handle(self) -> Handle:
        layout = layout_for(self.recipe, self._site)
        budget = (self.recipe.fiducial or Fiducial()).budget
        aligner = Aligner(
            self.instrument, self.description, self.journal.note, budget, stood=self._stood(), focused=self._focused(),
            usual=self._usual(),
        )  # fmt: skip
        self._aligner = aligner
        aligner.worn_m = worn(self.recipe, self.journal)
        for event in self.journal.events(kind="taken back"):
            ion = BeamSettings.model_validate(event.data.get("ion", {}))
            if ion.voltage_v and ion.current_a and ion.working_distance_m:
                aligner.pointing.add_focus(ion.voltage_v, ion.current_a, ion.working_distance_m, by_hand=True)
        earlier = [str(event.data["symptom"]) for event in self.journal.events(kind="mended")]
        points = site.usual_points(self.recipe, self.description)
        mender = Mender(self.instrument, aligner, self.journal.note, points, earlier)
        acts = Acts(
            self.journal, self.folder, _Watched(self.instrument, self._milling, self._checkpoint),
            ensure=aligner.ensure, checkpoint=self._checkpoint, mend=mender.mend,
            whole=lambda path: whole(Frame.load(path)), missing=self._missing(),
        )  # fmt: skip
        self._acts = acts
        return Handle(
            self.recipe, layout, self.description, acts, aligner,
            Labels(self.folder, self.follower, self.recipe.fillable),
            load=self._load, boundary=self._boundary, told=self._tell, answer=self._answered,
            free_bytes=self.folder.free_bytes, asked=partial(asked, self.journal), relit=self._relit,
        )  # fmt: skip

    def _missing(self) -> set[str]:
        """Return the ids of patterns that the journal lacks, for it was made again from a copy."""
        missing = missing_patterns(self.journal, self.instrument.patterns())
        if missing:
            log.warning("the journal lacks %d patterns that the server's ledger has", len(missing))
            self.journal.note("ledger", {"missing": sorted(missing)})
        return missing

    def _copy_journal(self) -> None:
        try:
            self.journal.copy()
        except (OSError, sqlite3.Error) as error:  # the run does not need it to go on
            log.error("no copy of the journal was made: %s", error)

    def _stood(self) -> Stood | None:
        """Return where a session before this one sent the stage."""
        moves = self.journal.events(kind="stage")
        if not moves:
            return None
        return Stood(**{name: StagePosition.model_validate(at) for name, at in moves[-1].data.items()})

    def _focused(self) -> list[Mapping[str, Any]]:
        """Return where the beam was found in focus by a session that ended just now, and nobody has touched it since.

        Focusing anew would give other pictures of the same plane, and so another reading of the ruler. What a person
        has focused before this session was adopted, however long they took.
        """
        outdate = ("mended", "taken back", "focus anew")
        since = max((event.seq for event in self.journal.events(kind=outdate)), default=0)
        found = [event for event in self.journal.events(since, kind="focused") if "plane_m" in event.data]
        ended = max((act.done_at for act in self.journal.acts() if act.done_at is not None), default=None)
        if ended is None or self.instrument.state().time_s - ended > FOCUS_KEPT_S:
            began = self.journal.events(kind="state")[-1].seq
            found = [event for event in found if event.seq > began and event.data.get("by") == BY_HAND]
        return [event.data for event in found]

    def _usual(self) -> list[Mapping[str, Any]]:
        """Return what currents gave since a person last began or resumed this run: they have looked at the source."""
        begun = (event for event in self.journal.events(kind="state") if event.data["to"] == "running")
        since = max((event.seq for event in begun if not event.data.get("alone")), default=0)
        return [event.data for event in self.journal.events(since, kind="usual current")]

    def _relit(self) -> int:
        """Return how often the ion source was lit again in this run, by the run itself or by a person."""
        mended = (str(event.data["done"]) for event in self.journal.events(kind="mended"))
        by_hand = (event.data["changes"] for event in self.journal.events(kind="taken back"))
        return sum("relit" in done for done in mended) + sum(SOURCE_LIT in found for found in by_hand)

    def _load(self, ref: FrameRef) -> Frame:
        path = self.folder.root / ref.name
        if not path.exists():
            msg = f"{ref.name} is missing"
            raise BadData(msg, path=str(path))
        return Frame.load(path)

    def _answered(self, what: str) -> str | None:
        answer = self.journal.meta(f"answer/{what}")
        return None if answer is None else str(answer)

    def _tell(self, telling: Telling, done: str | None) -> None:
        self._doing = f"{telling.step}, slice {telling.slice_k}, {telling.doing}"
        if done is not None:
            self._time(done)
            self._copy_journal()
        self._told(telling, done)

    def _time(self, name: str) -> None:
        """Keep how long a slice took on the wall, and how much of that inside calls of the server."""
        now = (time.monotonic(), float(self.instrument.seconds_in_calls))
        if self._slice_began is not None:
            wall, calls = now[0] - self._slice_began[0], now[1] - self._slice_began[1]
            self.journal.note("slice", {"name": name, "wall_s": wall, "calls_s": calls})
        self._slice_began = now

    # -- requests and signals -----------------------------------------------------------------------------------------

    def _checkpoint(self, key: str) -> None:
        asked = self._asked
        if asked is not None and asked.after == "now":
            self._honour(asked, f"before {key}")

    def _boundary(self, kind: str) -> None:
        asked = self._asked or self.folder.asked()
        if asked is None or _RANK[asked.after] > _RANK.get(kind, _RANK["fill"]):
            return
        if kind == "last slice" and asked.by == WINDOW:  # the end comes now, and the window has time for it
            return
        if kind == "before a fill" and asked.by != WINDOW:  # a window has no time for one: it waits for the next
            return
        self._honour(asked, _WHERE.get(kind, f"after a {kind}"))

    def _honour(self, asked: Request, where: str) -> None:
        self._asked = asked
        self.journal.note("request", {**asked.model_dump(), "honoured": where})
        msg = f"{'paused' if asked.what == 'pause' else 'stopped'} {where}, as {asked.by or 'somebody'} asked"
        raise Interrupted(msg, pause=asked.what == "pause")

    def _watch(self) -> None:
        """Give signs of life, and see requests that can't wait for a boundary: the pattern in hand is ended early."""
        beaten = -heartbeat.EVERY_S
        while not self._ended.wait(_WATCH_S):
            if time.monotonic() - beaten >= heartbeat.EVERY_S:
                heartbeat.beat(self.folder.root, "running", self._doing)
                beaten = time.monotonic()
            asked = self.folder.asked()
            if asked is None or asked.after != "now":  # one that can't wait goes before what is honoured already
                asked = self._asked
            if asked is not None and asked.after == "now":
                self._stop_now(asked)  # again and again: one that came just before its pattern has ended nothing

    def _stop_now(self, asked: Request) -> None:
        self._asked = asked  # before the look: whoever begins a pattern looks the other way round
        if self._milling.is_set():
            try:
                self.instrument.stop()
            except InstrumentError as error:
                log.warning("the pattern in hand could not be stopped: %s", error.message)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM stop cleanly: the pattern in hand ends early, its rest is given on resume."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def caught(number: int, frame: FrameType | None) -> None:
            del frame
            if self._asked is not None:
                raise KeyboardInterrupt
            asked = Request(what="stop", after="now", by=signal.Signals(number).name)
            threading.Thread(target=self._stop_now, args=(asked,), name="stop", daemon=True).start()

        before = {number: signal.signal(number, caught) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- state --------------------------------------------------------------------------------------------------------

    def _change(self, to: str, data: dict[str, Any] | None = None) -> None:
        now = self.state
        if to not in CHANGES.get(now, ()):
            msg = f"{self.folder.root} is {now} and can't become {to}"
            raise Refused(msg, rule="run-state", field="state", value=now, limit=", ".join(CHANGES.get(now, ())))
        until = {"until": self.journal.meta("armed_until"), "default": STAYS} if to == "held" else {}
        self.journal.note("state", {"to": to, **(data or {}), **until})
        resumed = to == "failed" and self.folder.supervised
        heartbeat.beat(self.folder.root, to, str((data or {}).get("why", "")), may_resume=resumed)

    @property
    def _window_over(self) -> bool:
        """Whether the run was asked to end because its window does: its night has kept time for the last pictures."""
        return self._asked is not None and self._asked.by == WINDOW

    def _last_pictures(self, handle: Handle) -> None:
        """Take the pictures that the recipe's end takes; they are this session's own, for another one may go on."""
        session = sum(event.data["to"] == "running" for event in self.journal.events(kind="state"))
        try:
            finish.pictures(handle, f"window-{session}")
        except Interrupted:  # somebody can't wait for them
            raise
        except (InstrumentError, OSError) as error:  # without them it still ends as it should
            log.error("the last pictures: %s", error)

    def _leave(self) -> dict[str, Any] | None:
        """Leave the instrument as the recipe's end does, for nobody comes before morning; a failure is logged.

        Returns as `_idle` does.
        """
        end = next((step for _, step in self.recipe.named_steps() if isinstance(step, Finish)), Finish())
        left = self._idle()
        try:
            if self._aligner is not None:
                self._aligner.leave(end.source)
        except InstrumentError as error:
            log.error("leaving the instrument for the night: %s", error.message)
        return left

    def _idle(self) -> dict[str, Any] | None:
        """Set the least ion current, for a person may come; a failure is logged.

        Returns how the run had left what somebody else has changed since, which stays as it is; None where nobody has.
        """
        try:
            if self._aligner is not None:
                self._aligner.idle()
        except AnotherHand as hand:
            left: dict[str, Any] = hand.evidence["left"]
            return left
        except InstrumentError as error:
            log.error("the ion current could not be lowered: %s", error.message)
        return None

    def _safe(self, left: dict[str, Any] | None = None) -> None:
        """Make the instrument safe; a failure is logged, for the server does it too when the lease lapses.

        `left` : the state before somebody else changed it, None: as it is now
        """
        try:
            self.instrument.make_safe()
            left = left or self._idle()
            with durable.if_room("how the instrument was left"):
                self.journal.note("left", left or self.instrument.state().model_dump(mode="json"))
        except InstrumentError as error:
            log.error("make safe: %s", error.message)


class _Watched:
    """Acts' instrument that says when a pattern is in hand, and begins none when a request can't wait for its end."""

    def __init__(self, instrument: Any, milling: threading.Event, checkpoint: Callable[[str], None]) -> None:
        self._instrument = instrument
        self._milling = milling
        self._checkpoint = checkpoint

    def perform(self, action_id: str, command: Command) -> Result:
        if not isinstance(command, WritePattern):
            return self._performed(action_id, command)
        self._milling.set()
        try:
            self._checkpoint("the next pattern")  # from here on the watcher ends it; what came before is seen here
            return self._performed(action_id, command)
        except Stopped:
            self._checkpoint("the next pattern")  # it never began: that is what was asked for, no failure
            raise
        finally:
            self._milling.clear()

    def _performed(self, action_id: str, command: Command) -> Result:
        result: Result = self._instrument.perform(action_id, command)
        return result

    def lookup(self, action_id: str) -> Record | None:
        found: Record | None = self._instrument.lookup(action_id)
        return found

    def chunks(self, frame: FrameRef) -> Iterator[bytes]:
        yield from self._instrument.chunks(frame)

    def release_frame(self, frame: FrameRef) -> None:
        self._instrument.release_frame(frame)
