"""The same recipe with the instrument in this process and over Pyro5: identical planes and labels come of both."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import Pyro5.api
import pytest
from pytest_mock import MockerFixture

from instrument import connect, link, remote
from instrument.errors import from_plain
from instrument.link import OPERATE
from instrument.remote import RemoteMicroscope
from instrument.server import EXPOSED, Server
from tests.end_to_end.test_first_run import SMALL, end_server
from tests.end_to_end.test_through_autoscript import FIRST
from workflows import session
from workflows.cli import run_command

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


class Direct:
    """A server's methods, called without a wire."""

    def __init__(self, published: Any) -> None:
        self._published = published

    def call(self, method: str, *args: Any) -> Any:
        Pyro5.api.current_context.client = SimpleNamespace(kintsugi_role=OPERATE)
        answer = getattr(self._published, method)(*args)
        if "error" in answer:
            raise from_plain(answer["error"])
        return answer["ok"]

    def keep(self, timeout_s: float) -> None:
        """Nothing has to be kept open."""

    def close(self) -> None:
        """Nothing has to be closed."""


def run(recipe: Path, images: int, out: Path) -> list[dict[str, Any]]:
    assert run_command(["run", str(recipe), "--images", str(images), "--out", str(out)]) == 0
    slices: list[dict[str, Any]] = json.loads((out / "summary.json").read_text(encoding="utf-8"))["slices"]
    assert len(slices) == images
    return slices


@pytest.mark.parametrize(("recipe", "images"), [(SMALL, 3), (FIRST, 20)])
def test_planes_and_labels_are_identical(recipe: Path, images: int, tmp_path: Path, mocker: MockerFixture) -> None:
    over = run(recipe, images, tmp_path / "over")
    end_server(tmp_path / "over" / "instrument" / "server.json")
    servers: list[Server] = []

    def in_process(state: Path, url: str, name: str) -> RemoteMicroscope:
        servers.append(Server(connect(url, state), state))
        published = link.published(servers[0], EXPOSED)
        mocker.patch.object(remote, "Line", return_value=Direct(published))
        return RemoteMicroscope("in this process", 0, "", name)

    mocker.patch.object(session, "remote_for", in_process)
    inside = run(recipe, images, tmp_path / "inside")
    servers[0].close()
    assert [one["z_m"] for one in inside] == [one["z_m"] for one in over]
    for number in range(1, images + 1):
        labels = [tmp_path / which / "labels" / f"s{number:04d}.tif" for which in ("inside", "over")]
        assert labels[0].read_bytes() == labels[1].read_bytes(), number
