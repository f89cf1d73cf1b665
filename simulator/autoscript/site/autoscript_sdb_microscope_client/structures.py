"""The client's structures, by their vendor's name."""

from simulator.autoscript.images import AdornedImage  # noqa: F401
from simulator.autoscript.structures import *  # noqa: F403
