"""The page on which a site is clicked, in a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from instrument.settings import StagePosition
from tests.workflows.frames import frame
from workflows.layout import Layout
from workflows.recipe import load
from workflows.site_page import page
from workflows.siting import Clicks, Pictures

RECIPE = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"
BROWSER = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed"),
    pytest.mark.timeout(120),
]
#: Clicks where the mouse is put down on a pixel of a picture, then gives what is seen as the page's title.
CLICK = """<script>
for (const [id, x, y] of @CLICKS@) {
  const at = document.getElementById(id);
  if (id === "undo") { at.click(); continue }
  const p = new DOMPoint(x, y).matrixTransform(at.getScreenCTM());
  at.dispatchEvent(new MouseEvent("click", {clientX: p.x, clientY: p.y, bubbles: true}));
}
document.title = JSON.stringify({line: document.getElementById("line").value,
  now: document.getElementById("now").textContent, boxes: document.querySelectorAll("#ion rect").length});
</script>"""


def clicked(tmp_path: Path, clicks: list[tuple[str, float, float]], marks: int = 0) -> dict[str, object]:
    """Return what the page shows after these clicks: its line, what it asks for next, the boxes drawn."""
    blank = frame(np.zeros((1, 512, 768), np.uint8))
    text = page("Site edge-A", Pictures(blank, blank, StagePosition()), Layout.at(load(RECIPE), None), marks)
    place = tmp_path / "look.html"
    place.write_text(text + CLICK.replace("@CLICKS@", json.dumps(clicks)), encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1500,1000", "--dump-dom"]
    shown = subprocess.run([*command, place.as_uri()], capture_output=True, text=True, timeout=60, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", shown)
    assert title is not None
    found: dict[str, object] = json.loads(html.unescape(title[1]))
    return found


def test_clicks_become_the_line_that_the_command_reads(tmp_path: Path) -> None:
    found = clicked(
        tmp_path,
        [("ion", 60, 240), ("ion", 700.5, 250), ("ion", 400, 245), ("electron", 398, 300), ("ion", 420, 100.25)],
        marks=1,
    )
    clicks = Clicks.parse(str(found["line"]), marks=1)
    assert np.array(clicks.edge) == pytest.approx(np.array([(60, 240), (700.5, 250)]), abs=1.0)
    assert clicks.middle == pytest.approx((400, 245), abs=1.0)
    assert clicks.electron == pytest.approx((398, 300), abs=1.0)
    assert clicks.marks[0] == pytest.approx((420, 100.25), abs=1.0)
    assert "Copy the line" in str(found["now"])
    assert found["boxes"] == 2 + len(Layout.at(load(RECIPE), None).marks)


def test_a_click_in_the_other_picture_is_none_and_one_can_be_taken_back(tmp_path: Path) -> None:
    found = clicked(tmp_path, [("electron", 60, 240), ("ion", 60, 240), ("ion", 61, 240), ("undo", 0, 0)])
    assert found["line"] == ""
    assert "far right" in str(found["now"])
    assert found["boxes"] == 0
