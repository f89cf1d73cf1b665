"""Acts through the journal: what can't be had back is done once, whatever dies in between.

Intent is durable before an instrument is asked, the outcome after; an act with an outcome returns it without firing.
An act intended before and not done is settled by the server's ledger: never seen, do it; running, rejoin; done, take
it; cut short, give the rest. Where the ledger knows only bounds for a pattern, the step that asked for it settles how
much was given: by measuring, or by what does no harm. What can't be settled is `Held` for a person, with the evidence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from instrument.errors import BadData, InstrumentError, Refused, Stopped
from instrument.frame import FrameRef
from instrument.ledger import Record
from instrument.settings import Done, EdsScan, PatternJob, Scan, Setup, State
from instrument.wire import Acquire, AcquireEds, Command, Result, WritePattern
from workflows.journal import Act, ActState, Journal
from workflows.settling import Settle
from workflows.store import RunFolder

log = logging.getLogger(__name__)

_WHOLE = 1.0 - 1e-9
_FETCHES = 3
_STUCK = 3
#: A picture is taken so often at the most because part of it is missing.
_TAKEN = 2
#: A beam that fails within a pattern gives less charge than this share of what it should have, and the rest is given.
_FAILED = 0.8


class Held(InstrumentError):
    """The run can't know what happened, or may not decide alone: a person must look, with this evidence."""

    symptom = "held"


class Interrupted(InstrumentError):
    """A request to stop or pause was honoured; `pause` tells which."""

    symptom = "interrupted"

    def __init__(self, message: str, *, pause: bool = False, **evidence: Any) -> None:
        super().__init__(message, **evidence)
        self.pause = pause


class Instrument(Protocol):
    """What of the server acts need."""

    def perform(self, action_id: str, command: Command) -> Result:
        """Do a command once under this id, or join the one that goes on, or take what it gave."""

    def lookup(self, action_id: str) -> Record | None:
        """Return what the ledger says, None when it never saw the id."""

    def chunks(self, frame: FrameRef) -> Iterator[bytes]:
        """Yield a frame's file from the spool."""

    def release_frame(self, frame: FrameRef) -> None:
        """Let the spool delete a frame; harmless when it is gone."""


class Acts:
    """Does acts on an instrument through a journal into a run folder.

    Parameters
    ----------
    journal, folder, instrument : where intents and outcomes go, where frames go, who does it
    ensure : brings a set-up about just before firing
    checkpoint : called with the key before a set-up is brought about and before anything fires; raises Interrupted
        when a request waits
    mend : told of an act's error, tells whether it was mended so that the act may go on
    whole : tells whether a picture's file shows all of its scan
    missing : ids of patterns that were fired and that the journal lacks (`salvage.missing_patterns`): as long as there
        are any, the ledger is asked about each act, and what it doesn't know is not done
    """

    def __init__(
        self,
        journal: Journal,
        folder: RunFolder,
        instrument: Instrument,
        *,
        ensure: Callable[[Setup], State],
        checkpoint: Callable[[str], None],
        mend: Callable[[str, InstrumentError], bool] = lambda _key, _error: False,
        whole: Callable[[Path], bool] = lambda _path: True,
        missing: Iterable[str] = (),
    ) -> None:
        self._journal = journal
        self._folder = folder
        self._instrument = instrument
        self._ensure = ensure
        self._checkpoint = checkpoint
        self._mend = mend
        self._whole = whole
        self._missing = set(missing)
        self.clock_s: float | None = None

    def pattern(
        self,
        key: str,
        job: PatternJob,
        setup: Setup,
        *,
        kind: str = "mill",
        version: int = 1,
        settle: Settle | None = None,
    ) -> Done:
        """Write a job whole: after an interruption only its rest is given. The result's charge and time are sums.

        `settle` says how much counts as given where the ledger has only bounds; without it the run is held then.
        """
        act, old = self._intend(key, kind, job.model_dump(mode="json"), setup, version)
        if act.has_outcome:
            return Done.model_validate(act.result)
        so_far, stuck = _given(act), 0
        while True:
            rest = job if so_far is None else job.replace(from_fraction=so_far.fraction)
            command = WritePattern(job=rest)
            record = self._lookup(act, old)
            if record is not None and isinstance(record.error, Refused):
                act, old = self._journal.again(key, clock_s=self.clock_s), False
                record = self._lookup(act, old)
            if record is not None and record.state in ("cut", "failed"):
                done = _cut_short(rest, record) or self._settled(act, rest, record, settle)
            else:
                try:
                    done = _arrived(rest, self._fire(act, command, setup, record).done)
                except InstrumentError as error:
                    if self._hopeless(key, error):
                        raise
                    old = True  # what happened is the ledger's to say
                    continue
            if done is None:
                msg = f"{key}: the server can't say how much of this pattern was given before it ended"
                raise Held(msg, key=key, action_id=act.action_id)
            stuck = 0 if so_far is None or done.fraction > so_far.fraction else stuck + 1
            so_far = _add(so_far, done)
            if so_far.fraction >= min(_WHOLE, job.to_fraction - 1e-9):
                self._done(key, so_far.model_dump(mode="json"))
                return so_far
            log.warning("%s came to %.1f %% only; the rest is given", key, 100 * so_far.fraction)
            self._journal.cut(key, {"done": so_far.model_dump(mode="json")}, clock_s=self.clock_s)
            if stuck >= _STUCK:
                msg = (
                    f"{key}: the pattern ends at {100 * so_far.fraction:.1f} % again and again, without a reason given"
                )
                raise Held(msg, key=key, action_id=act.action_id)
            self._checkpoint(key)
            act, old = self._journal.again(key, clock_s=self.clock_s), False

    def frame(
        self, key: str, scan: Scan | EdsScan, setup: Setup, folder: str, name: str, *, version: int = 1
    ) -> FrameRef:
        """Take a picture or an element map into the run folder; the reference's name is the path in the folder."""
        kind = "eds" if isinstance(scan, EdsScan) else "frame"
        target = self._folder.frame_path(folder, name)
        args = {"scan": scan.model_dump(mode="json"), "file": self._folder.relative(target)}
        act, old = self._intend(key, kind, args, setup, version)
        if act.has_outcome:
            return FrameRef.model_validate(act.result)
        command: Command = AcquireEds(scan=scan) if isinstance(scan, EdsScan) else Acquire(scan=scan)
        while True:
            record = self._lookup(act, old)
            while record is not None and record.state in ("cut", "failed"):
                act, old = self._taken_again(key, "it was cut short"), False
                record = self._lookup(act, old)
            try:
                spooled = self._fire(act, command, setup, record).frame
            except InstrumentError as error:
                if self._hopeless(key, error):
                    raise
                old = True
                continue
            if spooled is None:
                msg = f"{key}: the server gave no frame"
                raise Held(msg, key=key, action_id=act.action_id)
            self._fetch(spooled, act)
            if act.attempt > _TAKEN or self._whole(target):
                break
            target.rename(target.with_name(f"broken-{act.attempt}-{target.name}"))
            act, old = self._taken_again(key, "part of it is missing"), False
            self._instrument.release_frame(spooled)
        kept = spooled.replace(name=self._folder.relative(target))
        self._done(key, kept.model_dump(mode="json"))
        self._instrument.release_frame(spooled)
        return kept

    def value(
        self, key: str, kind: str, args: Any, compute: Callable[[], Any], *, version: int = 1, mended: bool = False
    ) -> Any:
        """Return plain values that were worked out once: a measurement, a decision, an answer.

        `args` are what it depends on (such as the hashes of its frames); `compute` runs only while there is no outcome.
        `mended`: it uses the instrument, and is tried again after what can be mended.
        """
        act = self._journal.intend(key, kind, args, replay_version=version, clock_s=self.clock_s)
        if act.has_outcome:
            return act.result
        while True:
            try:
                found = compute()
            except InstrumentError as error:
                if not mended or self._hopeless(key, error):
                    raise
            else:
                return self._done(key, found).result

    # -- private ----------------------------------------------------------------------------------------------------

    def _intend(self, key: str, kind: str, args: Any, setup: Setup, version: int) -> tuple[Act, bool]:
        """Return the act and whether it was there before."""
        old = self._journal.find(key)
        if old is None:
            self._checkpoint(key)
        plain = setup.model_dump(mode="json", exclude_none=True)
        act = self._journal.intend(key, kind, args, plain, replay_version=version, clock_s=self.clock_s)
        if act.state is ActState.CUT:
            self._checkpoint(key)
            return self._journal.again(key, clock_s=self.clock_s), False
        return act, old is not None

    def _lookup(self, act: Act, old: bool) -> Record | None:
        """Return what the ledger says of an act that may have been fired."""
        if not old and not self._missing:
            return None
        record = self._instrument.lookup(act.action_id)
        self._missing.discard(act.action_id)
        if record is None and self._missing:
            one = min(self._missing)
            msg = (
                f"{act.key} is not in the server's ledger, which has {len(self._missing)} patterns that the journal "
                f"lacks, such as {one}: what was done since the journal's last copy can't be followed, so nothing more "
                "is; adopt the block in a new run"
            )
            raise Held(msg, key=act.key, missing=sorted(self._missing))
        return record

    def _hopeless(self, key: str, error: InstrumentError) -> bool:
        """Tell whether an act's error is nothing that can be mended here and now."""
        return isinstance(error, Held | Interrupted | Stopped) or not self._mend(key, error)

    def _taken_again(self, key: str, why: str) -> Act:
        """Intend a picture anew; the face is as it was."""
        log.warning("%s: %s; it is taken again", key, why)
        self._journal.cut(key, {"why": why}, clock_s=self.clock_s)
        return self._journal.again(key, clock_s=self.clock_s)

    def _fire(self, act: Act, command: Command, setup: Setup, record: Record | None) -> Result:
        if record is None:
            self._checkpoint(act.key)
            self.clock_s = self._ensure(setup).time_s
            self._checkpoint(act.key)  # gas that heats and looks take minutes
        else:
            log.info("%s: the ledger says %s", act.key, record.state)
        try:
            return self._instrument.perform(act.action_id, command)
        except Refused as refused:
            self._journal.note("refused", {"key": act.key, **refused.to_plain()}, clock_s=self.clock_s)
            raise

    def _settled(self, act: Act, rest: PatternJob, record: Record, settle: Settle | None) -> Done | None:
        """Return what counts as given where the ledger has only bounds, None where nothing can settle it."""
        if settle is None:
            return None
        bounds = {} if record.error is None else record.error.evidence
        at_least = max(rest.from_fraction, float(bounds.get("at_least", rest.from_fraction)))
        at_most = max(at_least, min(rest.to_fraction, float(bounds.get("at_most", rest.to_fraction))))
        found = settle(act.attempt, at_least, at_most)
        log.warning(
            "%s: between %.1f and %.1f %% of it was given; counted as %.1f %%: %s",
            act.key, 100 * at_least, 100 * at_most, 100 * found.fraction, found.by,
        )  # fmt: skip
        data = {"key": act.key, "at_least": at_least, "at_most": at_most, **asdict(found)}
        self._journal.note("counted", data, clock_s=self.clock_s)
        return _part(rest, min(at_most, max(at_least, found.fraction)))

    def _fetch(self, spooled: FrameRef, act: Act) -> None:
        target = self._folder.root / act.args["file"]
        for attempt in range(1, _FETCHES + 1):
            try:
                self._folder.receive(target, self._instrument.chunks(spooled), spooled.sha256)
            except BadData:
                if attempt == _FETCHES:
                    raise
                log.warning("%s arrived damaged, fetched again", spooled.name)
            else:
                return

    def _done(self, key: str, result: Any) -> Act:
        return self._journal.done(key, result, clock_s=self.clock_s)


def _arrived(rest: PatternJob, done: Done | None) -> Done | None:
    """Return an outcome as far as charge arrived: a source that died within a pattern gave only its beginning."""
    if done is None or done.fraction <= rest.from_fraction:
        return done
    share = done.charge_c / (rest.dose_c * (done.fraction - rest.from_fraction))
    if share >= _FAILED:
        return done
    fraction = rest.from_fraction + share * (done.fraction - rest.from_fraction)
    return done.replace(fraction=fraction, stopped=True)


def _cut_short(rest: PatternJob, record: Record) -> Done | None:
    """Return how far a pattern came by the ledger, None when it doesn't say."""
    if record.result is not None and record.result.done is not None:
        return record.result.done
    return None if record.fraction is None else _part(rest, record.fraction)


def _part(rest: PatternJob, fraction: float) -> Done:
    """Return the outcome of a job that ended at a fraction (0..1)."""
    charge = rest.dose_c * max(0.0, fraction - rest.from_fraction)
    return Done(fraction=fraction, elapsed_s=charge / rest.current_a, charge_c=charge, stopped=True)


def _given(act: Act) -> Done | None:
    """Return what earlier attempts of a pattern gave, None when nothing."""
    evidence = act.evidence or {}
    return Done.model_validate(evidence["done"]) if "done" in evidence else None


def _add(before: Done | None, now: Done) -> Done:
    if before is None:
        return now
    return now.replace(elapsed_s=before.elapsed_s + now.elapsed_s, charge_c=before.charge_c + now.charge_c)
