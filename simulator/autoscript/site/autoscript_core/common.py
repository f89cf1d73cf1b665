"""The server's exceptions, by their vendor's name."""

from simulator.autoscript.tree import ApplicationServerException

__all__ = ["ApplicationServerException"]
