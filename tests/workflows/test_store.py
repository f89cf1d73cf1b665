"""The run folder."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest

from instrument.durable import FileLock
from instrument.errors import BadData, Refused
from workflows import store
from workflows.journal import Journal
from workflows.store import Request, RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "RUN")


def test_a_new_folder_has_its_rooms(folder: RunFolder) -> None:
    names = sorted(path.name for path in folder.root.iterdir())
    assert names == ["eds", "instrument", "labels", "looks", "overviews", "pairs", "slices"]


def test_an_occupied_folder_is_refused_with_the_remedy(tmp_path: Path, folder: RunFolder) -> None:
    with pytest.raises(Refused, match=r"not empty.*name a new folder"):
        RunFolder.create(folder.root)
    folder.write_recipe("kintsugi: 1\n")
    Journal.create(folder.journal).close()
    with pytest.raises(Refused, match="kintsugi resume"):
        RunFolder.create(folder.root)
    (tmp_path / "file").write_text("x")
    with pytest.raises(Refused, match="is a file"):
        RunFolder.create(tmp_path / "file")
    assert RunFolder.create(tmp_path / "new" / "deep").root.is_dir()


def test_opening_says_what_is_missing(tmp_path: Path, folder: RunFolder) -> None:
    with pytest.raises(Refused, match=r"no recipe\.yaml and no journal\.sqlite"):
        RunFolder.open(tmp_path / "nowhere")
    folder.write_recipe("kintsugi: 1\n")
    (folder.root / "journal.sqlite.damaged-1").write_bytes(b"")
    with pytest.raises(Refused, match=r"there is journal\.sqlite\.damaged-1: `kintsugi resume .*` makes it again"):
        RunFolder.open(folder.root)
    Journal.create(folder.journal).close()
    assert RunFolder.open(folder.root).recipe.read_text() == "kintsugi: 1\n"


def test_a_frame_is_received_whole_or_not_at_all(folder: RunFolder) -> None:
    data = [b"a" * 1000, b"b" * 10]
    sha = hashlib.sha256(b"".join(data)).hexdigest()
    target = folder.frame_path("slices", "s0001")
    with pytest.raises(BadData, match="arrived damaged"):
        folder.receive(target, data[:1], sha)
    assert list(folder.slices.iterdir()) == []
    folder.receive(target, data, sha)
    assert target.read_bytes() == b"".join(data)
    assert folder.receive(target, iter([]), sha) == target
    with pytest.raises(BadData, match="exists already"):
        folder.receive(target, [b"other"], hashlib.sha256(b"other").hexdigest())
    assert folder.slice_names() == ["s0001"]
    assert folder.relative(target) == "slices/s0001.ome.tif"


@pytest.mark.parametrize(("where", "name"), [("slices", "../x"), ("slices", ""), ("truth", "s0001"), ("slices", ".x")])
def test_names_stay_inside(folder: RunFolder, where: str, name: str) -> None:
    with pytest.raises(ValueError, match="frame"):
        folder.frame_path(where, name)


def test_labels_count_with_their_numbers(folder: RunFolder) -> None:
    (folder.labels / "s0001.tif").write_bytes(b"")
    (folder.labels / "s0002.tif").write_bytes(b"")
    (folder.labels / "s0002.json").write_text('{"confidence": 0.5}')
    assert folder.label_names() == ["s0002"]
    assert folder.numbers("s0001") is None
    assert folder.numbers("s0002") == {"confidence": 0.5}


def test_the_summary_says_virtual_first(folder: RunFolder) -> None:
    assert folder.read_summary() == {}
    folder.write_summary({"slices_acquired": 3}, virtual=True)
    assert next(iter(json.loads(folder.summary.read_text()))) == "VIRTUAL"
    folder.write_summary({"slices_acquired": 3}, virtual=False)
    assert folder.read_summary() == {"slices_acquired": 3}


def test_requests_wait_and_are_answered(folder: RunFolder) -> None:
    assert folder.asked() is None
    folder.ask(Request(what="pause", after="cut"))
    folder.ask(Request(what="stop", after="now", by="me"))
    asked = folder.asked()
    assert asked is not None
    assert (asked.what, asked.after, asked.by) == ("stop", "now", "me")
    assert asked.wall
    folder.answered()
    folder.answered()
    assert folder.asked() is None
    folder.request.write_text("{not json")
    unreadable = folder.asked()
    assert unreadable is not None
    assert unreadable.what == "stop"


def test_whoever_would_heed_a_request_attends_the_run(folder: RunFolder) -> None:
    assert not folder.attended
    with FileLock(folder.lock):
        assert folder.attended
        assert not folder.supervised
    with FileLock(folder.night):
        assert folder.attended
        assert folder.supervised
    assert not folder.attended


def test_what_a_run_has_written_is_its_own_not_what_people_made_of_it(folder: RunFolder) -> None:
    assert folder.written_bytes() == 0
    folder.frame_path("slices", "s0001").write_bytes(b"x" * 1000)
    (folder.volume / "0" / "c").mkdir(parents=True)
    (folder.volume / "0" / "c" / "0").write_bytes(b"x" * 200)
    (folder.labels / "s0001.tif").write_bytes(b"x" * 30)
    (folder.root / "export-tiff").mkdir()
    (folder.root / "export-tiff" / "s0001.tif").write_bytes(b"x" * 5000)
    assert folder.written_bytes() == 1230


def test_free_space_is_that_of_the_disk_where_a_run_would_lie(tmp_path: Path) -> None:
    assert store.free_bytes(tmp_path / "not" / "yet") == store.free_bytes(tmp_path) > 0


def test_the_log_has_iso_times_and_is_let_go(folder: RunFolder) -> None:
    with folder.logging():
        logging.getLogger("workflows.test").info("slice %d", 3)
    logging.getLogger("workflows.test").error("after")
    text = folder.log.read_text()
    assert text.count("\n") == 1
    assert text.startswith("20")
    assert "+00:00 INFO workflows.test slice 3" in text
