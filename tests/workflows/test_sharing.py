"""Labels made over the wire: frames go there, labels come back whole, nothing else of the run is to be had."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile

from analysis.core import SegmentationCore
from analysis.elsewhere import relay
from analysis.watch import ORDERS, orders, work
from instrument.errors import BadData, ConnectionLost, NotInControl
from instrument.link import Line, Place, place_of
from tests.analysis.test_follow import run_with_slices, save
from workflows.mirror import KEPT, Mirror
from workflows.sharing import OBJECT, Share, serve

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def core() -> SegmentationCore:
    return SegmentationCore()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_with_slices(tmp_path / "RUN")


@contextmanager
def shared(run: Path, *, going_on: bool = False, port: int = 0) -> Iterator[Place]:
    """A run that is lent, and the place that its owner tells."""
    stopping, told = threading.Event(), threading.Event()
    where: dict[str, object] = {}

    def tell(found: dict[str, object]) -> None:
        where.update(found)
        told.set()

    share = Share(run, 1.2e-6, lambda: going_on)
    thread = threading.Thread(
        target=serve, args=(share, run / "share"), kwargs={"port": port, "stopping": stopping, "told": tell}
    )
    thread.start()
    try:
        assert told.wait(30)
        yield place_of(f"pyro://{where['host']}:{where['port']}?token_file={where['token_file']}")
    finally:
        stopping.set()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def mirror(run: Path, tmp_path: Path) -> Iterator[Mirror]:
    with shared(run) as place:
        found = Mirror(place, tmp_path / "mirror")
        yield found
        found.close()


def labels_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "labels").glob("s*")) if path.suffix != ".json"}


def test_slices_that_nobody_ordered_are_labelled_as_on_a_shared_folder(
    core: SegmentationCore, run: Path, mirror: Mirror, tmp_path: Path
) -> None:
    assert [told["name"] for told in mirror.work(core, set())] == ["s0001", "s0002"]
    over_the_wire = labels_of(run)
    assert set(over_the_wire) == {f"s000{k}{part}.tif" for k in (1, 2) for part in ("", "-confidence", "-doubt")}
    numbers = json.loads((run / "labels" / "s0001.json").read_text())
    assert numbers["labels_sha256"] == hashlib.sha256(over_the_wire["s0001.tif"]).hexdigest()
    assert list(mirror.work(core, set())) == []
    for path in (run / "labels").glob("s*"):
        path.unlink()
    list(work(core, run, set(), fillable_m=1.2e-6))
    assert labels_of(run) == over_the_wire
    assert not list((tmp_path / "mirror" / "labels").glob("s*"))  # nothing is kept over here


def test_an_order_is_answered_to_who_asked(core: SegmentationCore, run: Path, tmp_path: Path) -> None:
    path = str(run / "slices" / "s0002.ome.tif")
    asked = json.dumps({"name": "s0002", "path": path, "before": path, "final": True})
    answer: dict[str, object] = {}
    gone = threading.Event()
    asker = threading.Thread(target=lambda: answer.update(relay(asked, run / "labels", gone)))
    asker.start()
    try:
        with shared(run, going_on=True) as place:
            found = Mirror(place, tmp_path / "mirror")
            deadline, pause = time.monotonic() + 60, threading.Event()
            told: list[dict[str, object]] = []
            while not told:
                assert time.monotonic() < deadline
                told = list(found.work(core, set()))
                pause.wait(0.02)
            found.close()
        asker.join(30)
    finally:
        gone.set()
        asker.join(30)
    assert [one["name"] for one in told] == ["s0002"]  # s0001 is its run's to order
    assert answer["labels"] == str(run / "labels" / "final" / "s0002.tif")
    assert tifffile.imread(str(answer["labels"])).dtype == np.uint8
    numbers = answer["numbers"]
    assert isinstance(numbers, dict)
    assert numbers["beside"] == ["before"]
    assert not list((run / "labels" / ORDERS).iterdir())


def test_a_frame_that_is_not_there_is_an_error_of_its_order(core: SegmentationCore, run: Path, mirror: Mirror) -> None:
    (run / "labels" / ORDERS).mkdir()
    order = {"name": "s0009", "path": "slices/s0009.ome.tif", "fillable_m": 1.2e-6}
    (run / "labels" / ORDERS / "s0009.order.json").write_text(json.dumps(order))
    first = next(mirror.work(core, set()))
    assert first["name"] == "s0009"
    assert first["error"]
    assert not orders(run)  # answered, with its error


def test_what_can_not_be_labelled_is_tried_once(core: SegmentationCore, run: Path, mirror: Mirror) -> None:
    (run / "slices" / "s0001.ome.tif").write_bytes(b"no picture")
    failed: set[str] = set()
    told = list(mirror.work(core, failed))
    assert [(one["name"], bool(one["error"])) for one in told] == [("s0001", True), ("s0002", False)]
    assert failed == {"s0001"}
    assert list(mirror.work(core, failed)) == []


def test_the_other_side_may_be_away_for_a_while(core: SegmentationCore, run: Path, tmp_path: Path) -> None:
    with shared(run) as place:
        found = Mirror(place, tmp_path / "mirror")
        next(mirror_work := found.work(core, set()))
        mirror_work.close()
        found.close()
    with pytest.raises(ConnectionLost):
        list(found.work(core, set()))
    with shared(run, port=place.port):
        assert [told["name"] for told in found.work(core, set())] == ["s0002"]
    found.close()


def test_only_so_many_frames_are_kept(core: SegmentationCore, run: Path, mirror: Mirror, tmp_path: Path) -> None:
    for k in range(3, KEPT + 4):
        save(run / "slices" / f"s{k:04d}.ome.tif", seed=k)
    assert len(list(mirror.work(core, set()))) == KEPT + 3
    assert len(list((tmp_path / "mirror" / "slices").iterdir())) == KEPT


@pytest.mark.parametrize(
    "name",
    [
        "journal.sqlite", "../secret", "slices/../journal.sqlite", "slices/s0001.ome.tif/../../journal.sqlite",
        "labels/s0001.tif", "instrument/token-operate", "/etc/passwd", "", 5, None, "slices/.hidden.ome.tif",
    ],
)  # fmt: skip
def test_nothing_but_frames_can_be_read(run: Path, name: object) -> None:
    (run / "journal.sqlite").write_bytes(b"the run's own")
    with shared(run) as place:
        line = Line(place.host, place.port, place.token, name=OBJECT)
        with pytest.raises(BadData):
            line.call("chunk", name, 0)
        with pytest.raises(BadData):
            line.call("sha256", name)
        line.close()


@pytest.mark.parametrize(
    "name",
    ["recipe.yaml", "slices/s0001.ome.tif", "labels/../recipe.yaml", "labels/orders/s0001.order.json",
     "labels/x/s0001.tif", "labels/.s0001.tif", "labels/s0001.sh", 7],
)  # fmt: skip
def test_nothing_but_labels_and_answers_can_be_written(run: Path, name: object) -> None:
    before = sorted(path.name for path in run.rglob("*"))
    with shared(run) as place:
        line = Line(place.host, place.port, place.token, name=OBJECT)
        with pytest.raises(BadData):
            line.call("put", name, 0, b"x")
        with pytest.raises(BadData):
            line.call("keep", name, hashlib.sha256(b"x").hexdigest())
        line.close()
    assert sorted(path.name for path in run.rglob("*") if "share" not in str(path.relative_to(run))) == before


def test_what_arrives_damaged_is_not_kept(run: Path) -> None:
    name = "labels/s0001.tif"
    with shared(run) as place:
        line = Line(place.host, place.port, place.token, name=OBJECT)
        line.call("put", name, 0, b"abc")
        with pytest.raises(BadData, match="don't follow"):
            line.call("put", name, 5, b"def")
        with pytest.raises(BadData, match="damaged"):
            line.call("keep", name, hashlib.sha256(b"abcdef").hexdigest())
        assert not (run / name).exists()
        line.call("put", name, 0, b"abc")
        line.call("put", name, 3, b"def")
        line.call("keep", name, hashlib.sha256(b"abcdef").hexdigest())
        assert (run / name).read_bytes() == b"abcdef"
        line.close()


def test_what_is_labelled_is_neither_lent_nor_taken_again(core: SegmentationCore, run: Path, tmp_path: Path) -> None:
    with shared(run) as place:
        found = Mirror(place, tmp_path / "mirror")
        list(found.work(core, set()))
        found.close()
        line = Line(place.host, place.port, place.token, name=OBJECT)
        with pytest.raises(BadData, match="waits to be labelled"):
            line.call("chunk", "slices/s0001.ome.tif", 0)
        with pytest.raises(BadData, match="waited for"):
            line.call("put", "labels/s0001.tif", 0, b"others")
        line.close()


def test_an_order_comes_before_slices_that_nobody_ordered(core: SegmentationCore, run: Path, mirror: Mirror) -> None:
    answers = mirror.work(core, set())
    assert next(answers)["name"] == "s0001"
    (run / "labels" / ORDERS).mkdir()
    save(run / "slices" / "s0003.ome.tif", seed=3)
    (run / "labels" / ORDERS / "torn.order.json").write_bytes(b'{"name": "s0\xff')
    order = {"name": "s0003", "path": "slices/s0003.ome.tif", "fillable_m": 1.2e-6}
    (run / "labels" / ORDERS / "s0003.order.json").write_text(json.dumps(order))
    assert [told["name"] for told in answers] == ["s0003", "s0002"]


def test_what_was_half_sent_goes_with_the_share(run: Path) -> None:
    with shared(run) as place:
        line = Line(place.host, place.port, place.token, name=OBJECT)
        line.call("put", "labels/s0001.tif", 0, b"abc")
        line.close()
        assert len(list((run / "labels").glob(".*.part"))) == 1
    assert not list((run / "labels").glob(".*.part"))


def test_nobody_without_the_token_is_let_in(core: SegmentationCore, run: Path, tmp_path: Path) -> None:
    with shared(run) as place:
        stranger = Mirror(Place(place.host, place.port, "0" * 64), tmp_path / "mirror")
        with pytest.raises(NotInControl):
            list(stranger.work(core, set()))
        stranger.close()
    assert (run / "share" / "token-operate").stat().st_mode & 0o077 == 0
