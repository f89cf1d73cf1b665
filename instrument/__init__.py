"""What a plasma FIB-SEM is: its verbs, settings, rules of safety, backends and server.

`connect(url)` opens an instrument by the scheme of its URL; backends are entry points of the group
`kintsugi.instruments`, and none is imported by name. SI units and radians throughout.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from instrument.errors import InstrumentError, Refused
from instrument.microscope import MakesSafe, Microscope

__all__ = ["GROUP", "InstrumentError", "Microscope", "Refused", "connect", "connect_beside", "name_of"]

GROUP = "kintsugi.instruments"


def connect(url: str, state: Path | None = None) -> Microscope:
    """Return the instrument of a URL such as `simulator:3`, `pyro://127.0.0.1:4000?token_file=F`.

    Parameters
    ----------
    url : the part before the first `:` or `?` names the backend
    state : folder in which a simulated instrument lasts; others don't need one

    Raises
    ------
    Refused
        When there is no such backend, or its packages are not installed.
    """
    point = _backend(url)
    try:
        opened: Microscope = point.load()(url, state)
    except ImportError as error:
        raise _lacks(point, url, error) from error
    return opened


def connect_beside(url: str) -> MakesSafe | None:
    """Return a connection to make safe by, beside another process's; None where the backend has no `open_for_safety`.

    Nothing is asked that making safe does not need. Raises what `connect` raises.
    """
    opener = getattr(import_module(_backend(url).module), "open_for_safety", None)
    return None if opener is None else opener(url)


def name_of(url: str) -> str | None:
    """Return the one name of a URL's instrument, however the URL is written: fit for a file, without options.

    None where the backend has no `name_of`: each connection has an instrument of its own, or a server that holds it.
    Raises what `connect` raises.
    """
    point = _backend(url)
    try:
        named = getattr(import_module(point.module), "name_of", None)
    except ImportError as error:
        raise _lacks(point, url, error) from error
    return None if named is None else str(named(url))


def _backend(url: str) -> EntryPoint:
    scheme = url.partition("?")[0].partition(":")[0].strip().lower()
    found = {point.name: point for point in entry_points(group=GROUP)}
    if scheme not in found:
        known = ", ".join(sorted(found)) or "none"
        msg = f"there is no instrument backend {scheme!r} for {url!r}; installed are {known}"
        raise Refused(msg, rule="backend-known", field="instrument", value=url, limit=known, remedy="check the URL")
    return found[scheme]


def _lacks(point: EntryPoint, url: str, error: ImportError) -> Refused:
    name = point.name
    msg = f"the backend {name!r} lacks the package {error.name!r}; install kintsugi with its extra, [{name}]"
    return Refused(msg, rule="backend-installed", field="instrument", value=url, remedy="install it")
