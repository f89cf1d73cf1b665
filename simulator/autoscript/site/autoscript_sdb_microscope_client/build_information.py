"""Which version the emulation speaks."""

from simulator.autoscript.client import VERSION as INFO_VERSIONSHORT

INFO_VERSIONLONG = f"{INFO_VERSIONSHORT} (virtual)"
