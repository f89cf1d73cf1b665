"""Is the virtual microscope right? What was published against what it does; careful runs against naive ones.

`python -m simulator.acceptance` prints the table (physics.md 8.8; night.md 25) and fails where one figure is off.
"""
