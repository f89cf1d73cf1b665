"""From a recipe's instrument to a server that holds it: simulators are made large enough, dead servers start again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from instrument import holding, name_of
from instrument.durable import FileLock
from instrument.errors import Refused
from workflows.recipe import Recipe
from workflows.recipe_rules import last_plane
from workflows.store import RunFolder

if TYPE_CHECKING:
    from instrument.remote import RemoteMicroscope

#: Beyond the last plane the virtual block goes on by this much: pore backs, and what a fill reaches (m).
_BEHIND_M = 3.5e-6
_BESIDE_M = 2e-6


def instrument_url(
    recipe: Recipe, asked: str | None = None, fault: Sequence[str] = (), faults: float | None = None
) -> str:
    """Return the URL of the instrument to use; a simulator that isn't told its block's size gets the recipe's.

    Parameters
    ----------
    recipe, asked : the recipe, and the instrument to use instead of the one it names
    fault, faults : what goes wrong with a simulator, as plasma-loss@03:10, and how often besides, times the usual rates

    Raises
    ------
    Refused : an option of a simulator that there isn't, or a value that is not possible; faults on a real instrument
    """
    url = asked or recipe.instrument
    wrong = [f"fault={one}" for one in fault] + ([] if faults is None else [f"faults={faults:g}"])
    if not is_simulator(url):
        if wrong:
            value = ", ".join(wrong)
            msg = f"{value} on {url}: faults are for the virtual microscope alone; use `kintsugi dry-run`"
            raise Refused(
                msg, rule="faults-are-virtual", field="fault", value=value, limit="simulator", remedy="use dry-run"
            )
        return url
    if wrong:
        url += ("&" if "?" in url else "?") + "&".join(wrong)
    url = _sized(recipe, url)
    from simulator.options import parse

    parse(url)
    return url


def _sized(recipe: Recipe, url: str) -> str:
    face = recipe.face
    if face is None:
        return url
    name, _, query = url.partition("?")
    cap = recipe.protect.thickness if recipe.protect is not None else 0.0
    wanted = {
        "width": face[0] + 2 * _BESIDE_M,
        "height": face[1],
        "depth": last_plane(recipe) + _BEHIND_M,
        "above": max(4e-6, 1.5 * cap),
        "pretilt": recipe.sample.pretilt,
    }
    given = {part.partition("=")[0] for part in query.split("&") if part}
    units = {"pretilt": ("rad", 1.0)}
    parts = [query] if query else []
    for option, value in wanted.items():
        if option not in given:
            unit, scale = units.get(option, ("um", 1e6))
            parts.append(f"{option}={value * scale:.6g}{unit}")
    return f"{name}?{'&'.join(parts)}"


def is_simulator(url: str) -> bool:
    """Tell whether a URL means our virtual microscope."""
    return url.partition("?")[0].partition(":")[0] == "simulator"


def dry(recipe: Recipe, seed: int | None = None) -> str:
    """Return the virtual microscope to rehearse a recipe on: the recipe's own, or one with the sample's coating."""
    if is_simulator(recipe.instrument) and seed is None:
        return recipe.instrument
    coating = recipe.sample.composition.coating if recipe.sample.composition is not None else None
    name = f"simulator:{1 if seed is None else seed}"
    return f"{name}?coating={coating * 1e6:.6g}um" if coating is not None else name


def server_for(state: Path, url: str) -> Path:
    """Return server.json of the server that holds an instrument; joined where it lives, else started.

    `state` is its folder (`state_folder`). A server that has ended is started again on its saved state. TimedOut when
    it doesn't come up, Refused where one lives that was started otherwise.
    """
    from instrument import server

    place = state / "server.json"
    if place.exists() and server.is_alive(place):
        held = str(json.loads(place.read_text(encoding="utf-8"))["url"])
        if held != url:
            msg = f"a server holds the instrument as {held}; {url} is asked for"
            raise Refused(
                msg, rule="one-server", field="instrument", value=url, limit=held,
                remedy="write the same URL, or wait until that server has ended: ten minutes after its last run",
            )  # fmt: skip
        return place
    return server.start(url, state)


def state_folder(folder: RunFolder, url: str, kept: str | None = None) -> Path:
    """Return where the server of a run's instrument keeps what it must not forget.

    A simulator's lies with its run. A real instrument has one for all runs, however its URL is written, in the user's
    own folder of the program (`holding.home`): two runs never drive it by two servers, each with a book of valves of
    its own. `kept` is what it was when the run began, whoever resumes it: the run's ledger is there.
    """
    here = (folder.instrument / "ledger.jsonl").exists()  # a run of an earlier version
    if here or is_simulator(url) or url.startswith("pyro:"):
        return folder.instrument
    if kept is not None:
        return Path(kept)
    spelled = holding.home() / _as_spelled(url)
    name = name_of(url)
    if name is None:
        return spelled
    found = holding.home() / name
    return spelled if spelled.exists() and not found.exists() else found  # one of an earlier version has its ledger


def _as_spelled(url: str) -> str:
    parts = urlsplit(url if "//" in url else url.replace(":", "://", 1))
    return re.sub(r"[^A-Za-z0-9.-]+", "-", f"{parts.scheme}-{parts.netloc.lower()}")


def remote_for(state: Path, url: str, run: str) -> RemoteMicroscope:
    """Return a run's instrument, not claimed yet: over a server that runs already (`pyro://`), else `server_for`."""
    from instrument.remote import at_url, attach

    if url.startswith("pyro:"):
        return at_url(url, run)
    return attach(server_for(state, url), run)


def runs(folder: RunFolder) -> bool:
    """Tell whether a process works on this run now."""
    return FileLock.is_held(folder.lock)
