"""The run's side of the segmentation core, against a core that behaves as told."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workflows.follower import PATIENCE_S, Follower, core_command

FAKE = Path(__file__).parent / "fake_core.py"
MakeFollower = Callable[..., Follower]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFollower]:
    made: list[Follower] = []

    def build(*options: str, **kwargs: float) -> Follower:
        follower = Follower([sys.executable, str(FAKE), *options], log_file=tmp_path / "core.log", **kwargs)
        made.append(follower)
        follower.start()
        return follower

    yield build
    for follower in made:
        follower.close(0.0)


def test_slices_are_answered_in_order(make: MakeFollower, tmp_path: Path) -> None:
    follower = make()
    for k in range(1, 6):
        follower.submit(f"s{k:04d}", tmp_path / f"s{k:04d}.ome.tif", 1.2e-6)
        follower.submit(f"s{k:04d}", tmp_path / f"s{k:04d}.ome.tif", 1.2e-6)
    assert follower.wait(["s0005", "s0001"], 20) == []
    assert list(follower.replies) == [f"s{k:04d}" for k in range(1, 6)]
    reply = follower.reply("s0003")
    assert reply is not None
    assert reply.numbers == {"fillable_m": 1.2e-6}
    assert reply.error is None
    assert follower.model_id == "fake"
    assert follower.seconds_per_slice < 10
    assert follower.patience_s() >= PATIENCE_S
    assert follower.close(20) == []


def test_handing_over_never_waits(make: MakeFollower, tmp_path: Path) -> None:
    follower = make("--deaf")
    before = time.perf_counter()
    for k in range(3000):
        follower.submit(f"s{k:04d}", tmp_path / f"{k}.ome.tif", 1e-6)
    assert time.perf_counter() - before < 20
    assert follower.wait(["s0000"], 0.2) == ["s0000"]
    assert sorted(follower.close(0.1)) == [f"s{k:04d}" for k in range(3000)]


def test_a_failing_slice_is_answered_with_its_error(make: MakeFollower, tmp_path: Path) -> None:
    follower = make()
    follower.submit("bad", tmp_path / "x", 1e-6)
    follower.submit("s0002", tmp_path / "y", 1e-6)
    assert follower.wait(["bad", "s0002"], 20) == []
    bad = follower.reply("bad")
    assert bad is not None
    assert bad.error == "cannot read it"


def test_killed_it_starts_again_with_what_it_owes(make: MakeFollower, tmp_path: Path) -> None:
    follower = make("--slow", "0.4")
    follower.submit("s0001", tmp_path / "1", 1e-6)
    assert follower.wait(["s0001"], 20) == []
    for k in (2, 3):
        follower.submit(f"s{k:04d}", tmp_path / str(k), 1e-6)
    process = follower._process
    assert process is not None
    os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    assert follower.wait(["s0002", "s0003"], 20) == []
    assert follower.starts == 2
    assert all(reply.error is None for reply in follower.replies.values())


def test_a_slice_that_kills_it_twice_is_given_up_and_the_rest_goes_on(make: MakeFollower, tmp_path: Path) -> None:
    follower = make()
    follower.submit("poison", tmp_path / "1", 1e-6)
    follower.submit("s0002", tmp_path / "2", 1e-6)
    assert follower.wait(["poison", "s0002"], 30) == []
    poison, good = follower.reply("poison"), follower.reply("s0002")
    assert poison is not None
    assert poison.error is not None
    assert "twice" in poison.error
    assert good is not None
    assert good.error is None


def test_one_that_never_lives_is_given_up(make: MakeFollower, tmp_path: Path) -> None:
    follower = make("--dies", restarts=1)
    follower.submit("s0001", tmp_path / "1", 1e-6)
    assert follower.wait(["s0001"], 30) == ["s0001"]
    assert "2 times in a row" in follower.trouble
    assert "dead before it began" in (tmp_path / "core.log").read_text()


def test_a_hung_one_is_ended_and_started_again(make: MakeFollower, tmp_path: Path) -> None:
    flag = tmp_path / "hung-once"
    follower = make("--hang-once", str(flag), hang_s=0.5)
    follower.submit("s0001", tmp_path / "1", 1e-6)
    assert follower.wait(["s0001"], 30) == []
    assert follower.starts == 2
    assert flag.exists()


def test_the_real_cores_command_names_model_and_folder(tmp_path: Path) -> None:
    command = core_command("hydra", tmp_path)
    assert command[1:] == ["-m", "analysis.follow", "--model", "hydra", "--out-labels", str(tmp_path)]
