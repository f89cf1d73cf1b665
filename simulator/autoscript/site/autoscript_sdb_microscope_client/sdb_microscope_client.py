"""The client's class and what is reached beside it, by their vendor's name."""

from simulator.autoscript.client import SdbMicroscopeClient
from simulator.autoscript.structures import BitmapPatternDefinition

__all__ = ["BitmapPatternDefinition", "SdbMicroscopeClient"]
