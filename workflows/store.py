"""The run folder: where everything of a run lies, and how it gets there whole or not at all.

    recipe.yaml  journal.sqlite  slices/  labels/  eds/  pairs/  overviews/  looks/  summary.json  report.html
    latest.png  index.html  instrument/ (a virtual one's ledger and state)  run.log  run.lock
    request.json (while one is waiting)  night.lock (of who supervises it)

Everything about a run can be rebuilt from `recipe.yaml`, `journal.sqlite` and `slices/`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from instrument import durable
from instrument.durable import FileLock
from instrument.errors import BadData, Refused
from instrument.frame import sha256_of
from workflows.journal import wall_now

FRAME_FOLDERS = ("slices", "eds", "pairs", "overviews", "looks")
_SUFFIX = ".ome.tif"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: By whom a night's own requests are.
SUPERVISOR, WINDOW = "the night's supervisor", "the schedule's window"


def frame_name(path: str) -> str:
    """Return the name of a frame by its path in the run's folder: "s0001" of "slices/s0001.ome.tif"."""
    return Path(path).name.removesuffix(_SUFFIX)


class Request(BaseModel):
    """What a person asks of a run that goes on elsewhere; it is honoured between acts.

    `stop` ends the run (exit code 3), `pause` hands the microscope over; after the cut, the slice or the fill in hand,
    or now (the pattern in hand ends early and its rest is given on resume).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: Literal["stop", "pause"]
    after: Literal["cut", "slice", "fill", "now"] = "slice"
    by: str = ""
    wall: str = ""

    @property
    def by_night(self) -> bool:
        """Whether a night asked by itself, with nobody there to take the microscope over."""
        return self.by in (SUPERVISOR, WINDOW)


class RunFolder:
    """One run's folder. `create` and `open` are the ways to get one."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.recipe = self.root / "recipe.yaml"
        self.journal = self.root / "journal.sqlite"
        self.slices = self.root / "slices"
        self.labels = self.root / "labels"
        self.final = self.labels / "final"  # of the second pass (analysis.follow)
        self.volume = self.root / "volume.ome.zarr"
        self.summary = self.root / "summary.json"
        self.report = self.root / "report.html"
        self.latest = self.root / "latest.png"
        self.index = self.root / "index.html"
        self.instrument = self.root / "instrument"
        self.server = self.instrument / "server.json"
        self.truth = self.instrument / "truth"
        self.log = self.root / "run.log"
        self.request = self.root / "request.json"
        self.lock = self.root / "run.lock"
        self.night = self.root / "night.lock"

    @classmethod
    def create(cls, root: Path) -> RunFolder:
        """Make a new run folder. Refused when something lies there already, or it can't be made."""
        cls.see_free(root)
        folder = cls(root)
        try:
            for name in (*FRAME_FOLDERS, "labels", "instrument"):
                durable.make_dir(folder.root / name)
        except OSError as error:
            raise cls._cannot_be_made(root, str(error.strerror)) from error
        return folder

    @classmethod
    def see_free(cls, root: Path) -> None:
        """See that a new run folder can be made at `root`, making nothing; Refused as `create` does."""
        if root.exists() and not root.is_dir():
            msg = f"--out {root} is a file; name a folder that doesn't exist yet"
            raise Refused(msg, rule="run folder is new", field="--out", value=str(root), remedy="name a new folder")
        if root.is_dir() and any(root.iterdir()):
            remedy = f"`kintsugi resume {root}` goes on with it" if cls.is_run(root) else "name a new folder"
            msg = f"--out {root} is not empty, and a run never writes over another's files; {remedy}"
            raise Refused(msg, rule="run folder is new", field="--out", value=str(root), remedy=remedy)
        above = next(place for place in (root.absolute(), *root.absolute().parents) if place.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise cls._cannot_be_made(root, f"{above} is {'not yours to write in' if above.is_dir() else 'a file'}")

    @staticmethod
    def _cannot_be_made(root: Path, why: str) -> Refused:
        msg = f"--out {root} can't be made: {why}"
        return Refused(msg, rule="run folder is new", field="--out", value=str(root), remedy="name another")

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """Return the run folder at `root`; Refused when there is none, saying what is missing.

        A recipe that is missing alone is in the journal.
        """
        folder = cls(root)
        missing = [path.name for path in (folder.recipe, folder.journal) if not path.exists()]
        if folder.journal.name in missing:
            left = sorted(path.name for path in root.glob("journal.*"))
            hint = f" (there is {', '.join(left)}: `kintsugi resume {root}` makes it again)" if left else ""
            msg = f"{root} is not a run folder: it has no {' and no '.join(missing)}{hint}"
            raise Refused(msg, rule="run folder exists", field="DIR", value=str(root), remedy="name a run's folder")
        return folder

    @staticmethod
    def named(name: str) -> Path:
        """Return where a new run of a recipe of this name goes unless told otherwise: runs/NAME-DATE."""
        kept = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
        plain = "-".join(part for part in kept.split("-") if part)[:40] or "run"
        return Path("runs") / f"{plain}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"

    @staticmethod
    def is_run(root: Path) -> bool:
        """Tell whether `root` holds a run."""
        return (root / "journal.sqlite").exists()

    # -- frames and labels ------------------------------------------------------------------------------------------

    def frame_path(self, folder: str, name: str) -> Path:
        """Return where the frame `name` (such as "s0001", "f01-before") of a folder lies: "slices/s0001.ome.tif"."""
        if folder not in FRAME_FOLDERS:
            msg = f"frames lie in {', '.join(FRAME_FOLDERS)}, not in {folder!r}"
            raise ValueError(msg)
        if not _NAME.fullmatch(name):
            msg = f"{name!r} can't be a frame's name: letters, digits, - and _ only"
            raise ValueError(msg)
        return self.root / folder / (name + _SUFFIX)

    def receive(self, target: Path, chunks: Iterable[bytes], sha256: str) -> Path:
        """Write a frame's file from its bytes, check its hash, and give it its name in one durable step.

        A file that lies there with the same hash is kept and nothing is read from `chunks`. Raises BadData when the
        hash of what came differs (nothing is left behind), or when another frame has the name already.
        """
        if target.exists():
            kept = sha256_of(target)
            if kept == sha256:
                return target
            msg = f"{target.name} exists already with other content"
            raise BadData(msg, path=str(target), expected=sha256, found=kept)
        digest = hashlib.sha256()
        draft = durable.temporary_for(target)
        try:
            with draft.open("wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                msg = f"{target.name} arrived damaged: its SHA-256 differs from what the server's ledger says"
                raise BadData(msg, path=str(target), expected=sha256, found=digest.hexdigest())
            durable.commit(draft, target)
        finally:
            draft.unlink(missing_ok=True)
        return target

    def relative(self, path: Path) -> str:
        """Return a path as it is written into journal and summary: relative to the run folder, with /."""
        return path.absolute().relative_to(self.root).as_posix()

    def slice_names(self) -> list[str]:
        """Return the names of the slices that lie here, in order."""
        return sorted(path.name.removesuffix(_SUFFIX) for path in self.slices.glob(f"s[0-9]*{_SUFFIX}"))

    def label_names(self) -> list[str]:
        """Return the names of the slices that have labels and numbers, in order."""
        return sorted(path.stem for path in self.labels.glob("s[0-9]*.tif") if path.with_suffix(".json").exists())

    def numbers(self, name: str) -> dict[str, Any] | None:
        """Return the numbers of a labelled slice (labels/s0001.json), None where there are none."""
        return _object(self.labels / f"{name}.json")

    def final_numbers(self, name: str) -> dict[str, Any] | None:
        """Return the numbers of a slice's final labels, which the slices on both sides had a part in; None without."""
        return _object(self.final / f"{name}.json")

    def label_path(self, name: str) -> Path:
        """Return the file of a slice's best labels: the final ones where there are any, else those given live."""
        final = self.final / f"{name}.tif"
        return final if final.with_suffix(".json").exists() else self.labels / f"{name}.tif"

    # -- files that are replaced -------------------------------------------------------------------------------------

    def write_recipe(self, text: str) -> None:
        """Keep the recipe as validated."""
        durable.atomic_write_bytes(self.recipe, text.encode("utf-8"))

    def write_summary(self, values: dict[str, Any], *, virtual: bool) -> None:
        """Write summary.json; a simulated run is marked so in its first key."""
        marked = {"VIRTUAL": "simulated: a virtual microscope made these numbers", **values} if virtual else values
        durable.atomic_write_json(self.summary, marked)

    def read_summary(self) -> dict[str, Any]:
        """Return summary.json, empty where there is none yet."""
        if not self.summary.exists():
            return {}
        value = json.loads(self.summary.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}

    # -- requests ----------------------------------------------------------------------------------------------------

    @property
    def supervised(self) -> bool:
        """Whether a night looks after the run now: what is asked between two of its processes stands."""
        return FileLock.is_held(self.night)

    @property
    def attended(self) -> bool:
        """Whether anybody would heed a request: a process that works on the run, or a night that supervises it."""
        return FileLock.is_held(self.lock) or self.supervised

    def ask(self, request: Request) -> None:
        """Leave a request for the run; it replaces one that the run hasn't seen yet."""
        stamped = request.model_copy(update={"wall": request.wall or wall_now()})
        durable.atomic_write_json(self.request, stamped.model_dump())

    def asked(self) -> Request | None:
        """Return the request that waits, if any; one that can't be read counts as a stop after the slice in hand."""
        try:
            return Request.model_validate_json(self.request.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            return Request(what="stop", by="a request that can't be read")

    def answered(self) -> None:
        """Take the request away once the run has honoured it."""
        self.request.unlink(missing_ok=True)

    # -- disk and log ------------------------------------------------------------------------------------------------

    def free_bytes(self) -> int:
        """Return the free space of the disk that the run folder lies on, bytes."""
        return free_bytes(self.root)

    def written_bytes(self) -> int:
        """Return what the run itself has written so far (bytes); what people have exported is not counted."""
        own = (*(self.root / name for name in FRAME_FOLDERS), self.labels, self.volume, self.instrument)
        return sum(_size(Path(place, name)) for folder in own for place, _, names in os.walk(folder) for name in names)

    @contextmanager
    def logging(self, *, debug: bool = False) -> Iterator[None]:
        """Write the log records of this process to run.log while the block runs, times in UTC (ISO 8601)."""
        handler = logging.FileHandler(self.log, encoding="utf-8", delay=True)
        handler.setFormatter(_IsoFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        root, level = logging.getLogger(), logging.DEBUG if debug else logging.INFO
        handler.setLevel(level)
        before = root.level
        root.addHandler(handler)
        root.setLevel(min(level, before) if before else level)
        try:
            yield
        finally:
            root.removeHandler(handler)
            root.setLevel(before)
            handler.close()


def free_bytes(place: Path) -> int:
    """Return the free space (bytes) of the disk on which `place`, which need not exist yet, would lie."""
    existing = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def _size(path: Path) -> int:
    """Return a file's size (bytes), 0 when it is gone by now."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def keep_message(root: Path, message: dict[str, Any]) -> None:
    """Keep a message to people in a run's journal, once there is one."""
    from workflows.journal import Journal

    if RunFolder.is_run(root):
        with durable.if_room("a message that was sent"), Journal(RunFolder.open(root).journal) as journal:
            journal.note("message", message)


class _IsoFormatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _object(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else None
