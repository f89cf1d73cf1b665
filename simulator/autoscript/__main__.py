"""Runs anybody's AutoScript script on the virtual microscope, unchanged.

python -m simulator.autoscript SCRIPT.py [ARGUMENTS...], or --path for the folder to put on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from pathlib import Path

from simulator.autoscript import client_path
from simulator.autoscript.profiles import PROFILES


def main(arguments: list[str] | None = None) -> int:
    """Run a script; returns 0 at its end, 2 where the arguments are wrong. Its own errors are its own."""
    parser = argparse.ArgumentParser(
        prog="kintsugi autoscript", description="run an AutoScript script on the virtual microscope, unchanged"
    )
    parser.add_argument("--path", action="store_true", help="print the folder to put on PYTHONPATH, and end")
    parser.add_argument("--profile", choices=list(PROFILES), help="which installation is emulated")
    parser.add_argument("--simulator", metavar="URL", help="the virtual microscope, as simulator:3?pace=20")
    parser.add_argument("--state", metavar="DIR", help="folder in which it lasts")
    parser.add_argument("script", nargs="?", help="the script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    options = parser.parse_args(arguments)
    if options.path:
        sys.stdout.write(f"{client_path()}\n")
        return 0
    if options.script is None:
        parser.error("which script? Or use --path")
    script = Path(options.script)
    if not script.is_file():
        parser.error(f"there is no script {script}")
    for name, value in (("PROFILE", options.profile), ("SIMULATOR", options.simulator), ("STATE", options.state)):
        if value is not None:
            os.environ[f"KINTSUGI_AUTOSCRIPT_{name}"] = value
    sys.stderr.write("VIRTUAL: the script runs on a simulated microscope\n")
    sys.path[:0] = [str(script.resolve().parent), str(client_path())]
    sys.argv = [str(script), *options.arguments]
    runpy.run_path(str(script), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
