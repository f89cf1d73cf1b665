"""Runs anybody's AutoScript script on the virtual microscope, unchanged.

python -m simulator.autoscript SCRIPT.py [ARGUMENTS...], or --path for the folder to put on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from pathlib import Path

from instrument.errors import Refused
from simulator.autoscript import client_path
from simulator.autoscript.profiles import PROFILES, profile
from simulator.options import parse

#: What can be set by an option, and by this variable of the environment.
_VARIABLES = {name: f"KINTSUGI_AUTOSCRIPT_{name.upper()}" for name in ("profile", "simulator", "state")}


def main(arguments: list[str] | None = None) -> int:
    """Run a script; returns 0 at its end, 2 where the arguments are wrong. Its own errors are its own."""
    parser = argparse.ArgumentParser(
        prog="kintsugi autoscript", description="run an AutoScript script on the virtual microscope, unchanged",
        epilog=f"--profile, --simulator and --state may be set by {', '.join(_VARIABLES.values())} instead",
    )  # fmt: skip
    parser.add_argument("--path", action="store_true", help="print the folder to put on PYTHONPATH, and end")
    parser.add_argument("--profile", help=f"which installation is emulated: {', '.join(PROFILES)} (default hydra)")
    parser.add_argument("--simulator", metavar="URL", help="the virtual microscope, as simulator:3?pace=20")
    parser.add_argument("--state", metavar="DIR", help="folder in which it lasts")
    parser.add_argument("script", nargs="?", metavar="SCRIPT.py", help="the script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENTS", help="its arguments")
    options = parser.parse_args(arguments)
    if options.path:
        sys.stdout.write(f"{client_path()}\n")
        return 0
    if options.script is None:
        parser.error("which script? Or use --path")
    script = Path(options.script)
    if not script.is_file():
        parser.error(f"there is no script {script}")
    for name, variable in _VARIABLES.items():
        if (value := getattr(options, name)) is not None:
            os.environ[variable] = value
    for name, check in (("profile", profile), ("simulator", _openable)):
        if (value := os.environ.get(_VARIABLES[name])) is not None:
            try:
                check(value)
            except (Refused, ValueError) as error:
                by = f"--{name} " if getattr(options, name) is not None else f"{_VARIABLES[name]}="
                parser.error(f"{by}{value}: {error}")
    sys.stderr.write("VIRTUAL: the script runs on a simulated microscope\n")
    sys.path[:0] = [str(script.resolve().parent), str(client_path())]
    sys.argv = [str(script), *options.arguments]
    runpy.run_path(str(script), run_name="__main__")
    return 0


def _openable(url: str) -> None:
    """Raise what is wrong with the URL of a virtual microscope, without building it."""
    file = parse(url).file
    if file is not None and not file.is_file():
        msg = f"there is no file {file}"
        raise ValueError(msg)


if __name__ == "__main__":
    sys.exit(main())
