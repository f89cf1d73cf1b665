"""From a recipe to a plan to a run: steps through a journal on an instrument, labels as evidence, the command line.

`recipe` reads what a person wrote, `plan` reckons it, `run` does it through `handle` and the `steps`, `results` and
`reporting` say what came of it; `cli` is the `kintsugi` command.
"""
