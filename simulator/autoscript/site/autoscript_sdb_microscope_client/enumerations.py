"""The client's enumerations, by their vendor's name."""

from simulator.autoscript.enumerations import *  # noqa: F403
