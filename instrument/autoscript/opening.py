"""Opens the microscope by its URL: to work with, to read from only, or to make safe."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from instrument.autoscript import element_files, screen
from instrument.autoscript.byhand import PersonMapper
from instrument.autoscript.elements import ElementMapper, FolderMapper
from instrument.autoscript.microscope import AutoscriptMicroscope
from instrument.autoscript.refusing import refused
from instrument.autoscript.safety import Safety
from instrument.autoscript.xray import Command, LaserApi, XrayProgram
from instrument.settings import Beam, Description, State

#: Where the vendor's server listens unless a URL says otherwise.
_HOST, _PORT = "localhost", 7520
_LOOPBACK = ("127.0.0.1", "::1")


def open_url(url: str, state: Path | None = None) -> AutoscriptMicroscope:
    """Return the microscope of `autoscript://HOST[:PORT][?elements=FOLDER]`; `state` is where what it learns lasts.

    The folder's X-ray program is asked by `&elements_command=COMMAND` or `&elements_start=laser-api`, else by a person.
    """
    elements = _elements(url, state)  # what is wrong with the URL is said before anything is connected
    return AutoscriptMicroscope(*_place(url), elements, state=state)


def open_for_safety(url: str) -> Safety:
    """Return what makes the microscope of a URL safe: one connection, over which nothing else is asked."""
    return Safety(*_place(url))


def name_of(url: str) -> str:
    """Return the one name of the microscope of a URL, as autoscript-localhost-7520: this machine has many names."""
    host, port = _place(url)
    host = _HOST if host in (*_LOOPBACK, socket.gethostname().lower()) else host
    return re.sub(r"[^A-Za-z0-9.-]+", "-", f"autoscript-{host}-{port}")


def examine(url: str) -> tuple[Description, State, dict[str, Any]]:
    """Return what a microscope says of itself, its application files and its detectors' modes.

    It reads only, but its views show every detector for a moment, as a detector is asked where it is shown.
    """
    elements = _elements(url)
    opened = AutoscriptMicroscope(*_place(url), elements, ready=False)
    try:
        files = opened._do(  # noqa: SLF001 - its own package
            "list application files", lambda scope: [str(one) for one in scope.patterning.list_all_application_files()]
        )
        modes = opened._do("list modes", lambda scope: screen.modes(scope, Beam.ELECTRON))  # noqa: SLF001 - its own
        return opened.describe(), opened.state(), {"application_files": files, "detector_modes": modes}
    finally:
        opened.close()


# -- private ----------------------------------------------------------------------------------------------------------


def _parts(url: str) -> SplitResult:
    return urlsplit(url if "//" in url else url.replace("autoscript:", "autoscript://", 1))


def _place(url: str) -> tuple[str, int]:
    """Return host and port of a URL; Refused where its port is none."""
    parts = _parts(url)
    try:
        return parts.hostname or _HOST, parts.port or _PORT
    except ValueError as error:
        raise refused("autoscript-url", "instrument", url, "autoscript://HOST[:PORT]", "write it so") from error


def _elements(url: str, state: Path | None = None) -> ElementMapper | None:
    """Return the X-ray system of a URL, None where it has none; Refused where the URL can't be read."""
    parts = _parts(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(options) - {"elements", "elements_command", "elements_start"})
    if unknown or parts.scheme != "autoscript":
        raise refused("autoscript-url", "instrument", url, "autoscript://HOST[:PORT][?elements=FOLDER]", "write it so")
    if "elements" not in options:
        return None
    folder = Path(options["elements"])
    if not folder.is_dir():
        raise refused("autoscript-url", "elements", options["elements"], "a folder that is there", "make it first")
    if not element_files.can_read_oina() and any(element_files.is_oina(path) for path in folder.iterdir()):
        remedy = "pip install 'kintsugi[eds]', or move the .h5oina files elsewhere and export TIFF files"
        raise refused("oina-readable", "elements", ".h5oina without the package h5py", "TIFF files", remedy)
    program = _program(options)
    return PersonMapper(folder, state) if program is None else FolderMapper(folder, program)


def _program(options: dict[str, str]) -> XrayProgram | None:
    """Return what works the X-ray program, None where a person has to."""
    if "elements_start" in options:
        if options["elements_start"] != "laser-api":
            start = options["elements_start"]
            raise refused("autoscript-url", "elements_start", start, "laser-api", "write that, or leave it out")
        return LaserApi()
    command = options.get("elements_command")
    return Command(tuple(shlex.split(command))) if command else None
