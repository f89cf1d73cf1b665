"""Files that survive: atomic, appended, locked."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from instrument import durable


def test_a_whole_file_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    durable.atomic_write_bytes(target, b"old")
    durable.atomic_write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.bin"
    durable.atomic_write_bytes(target, b"old")

    def full(_file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "fsync_file", full)
    with pytest.raises(OSError, match="No space left"):
        durable.atomic_write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_json_keeps_nan_and_infinity(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    durable.atomic_write_json(target, {"a": math.nan, "b": math.inf, "c": "µm"})
    value = json.loads(target.read_text(encoding="utf-8"))
    assert math.isnan(value["a"])
    assert value["b"] == math.inf
    assert value["c"] == "µm"


def test_commit_gives_the_final_name(tmp_path: Path) -> None:
    source, target = tmp_path / "x.tmp", tmp_path / "x.tif"
    source.write_bytes(b"pixels")
    durable.commit(source, target)
    assert target.read_bytes() == b"pixels"
    assert not source.exists()


def test_lines_are_appended_and_a_torn_one_is_closed(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    assert durable.read_lines(log) == []
    durable.append_line(log, "one")
    with log.open("ab") as file:
        file.write(b"to")
    assert durable.read_lines(log) == ["one"]
    durable.append_line(log, "three")
    assert durable.read_lines(log) == ["one", "to", "three"]
    with pytest.raises(ValueError, match="line break"):
        durable.append_line(log, "a\nb")


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    durable.make_dir(tmp_path / "a" / "b")
    durable.make_dir(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_lock_is_refused_with_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    assert not durable.FileLock.is_held(path)
    with durable.FileLock(path, run="r1") as lock:
        assert lock.held
        assert durable.FileLock.is_held(path)
        with pytest.raises(durable.AlreadyLocked, match="run r1") as refused:
            durable.FileLock(path).acquire()
        assert refused.value.owner["pid"] == os.getpid()
    assert not durable.FileLock.is_held(path)
    with durable.FileLock(path, run="r2"):
        assert durable.FileLock.owner_of(path)["run"] == "r2"


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    code = (
        "import sys, pathlib; from instrument.durable import FileLock\n"
        "lock = FileLock(pathlib.Path(sys.argv[1]), run='dead').acquire(); print('held', flush=True); sys.stdin.read()"
    )
    root = Path(durable.__file__).parent.parent
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline().strip() == b"held"
    with pytest.raises(durable.AlreadyLocked, match=f"pid {child.pid}"):
        durable.FileLock(path).acquire()
    child.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    child.wait(10)
    child.stdin.close()
    child.stdout.close()
    with durable.FileLock(path):
        assert durable.FileLock.owner_of(path)["pid"] == os.getpid()
