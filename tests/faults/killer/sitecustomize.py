"""Imported by every interpreter that has this folder first on PYTHONPATH: ends processes of a run at a named point.

Inert unless KINTSUGI_KILL holds the JSON of a `tests.faults.strike.Plan`. What is made durable is written down in
`synced.log` beside the run folder, so that a power cut can take away the rest.
"""

import os

if os.environ.get("KINTSUGI_KILL"):
    from tests.faults import strike

    strike.arm(os.environ["KINTSUGI_KILL"])
