"""An emulation of the vendor's client: see `simulator.autoscript`."""

from autoscript_sdb_microscope_client import build_information, enumerations, structures
from simulator.autoscript.client import SdbMicroscopeClient

__all__ = ["SdbMicroscopeClient", "build_information", "enumerations", "structures"]
