"""Where a training keeps what it needs to go on as if nothing had happened, beside the model folder that it writes.

A file is there whole or not at all; it is read as plain values and tensors, never as code.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.files import write_whole

if TYPE_CHECKING:
    from analysis.augment import Plate


@dataclass(frozen=True)
class State:
    """How far a training is.

    Parameters
    ----------
    step : optimiser steps that are done
    seconds : wall time that they took, with all before them
    images : `digest` of the images that it trains on
    generator : state of the generator that draws crops, as JSON
    network, average, optimiser, schedule : their states, as torch gives them
    """

    step: int
    seconds: float
    images: str
    generator: str
    network: Mapping[str, Any]
    average: Mapping[str, Any]
    optimiser: Mapping[str, Any]
    schedule: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """The file beside a model folder, and what a training was asked for: only the very same may go on from it."""

    path: Path
    options: Mapping[str, str]

    def read(self) -> State | None:
        """Return how far a training came, None where there was none.

        ValueError: the file can't be read, or is of a training with other options.
        """
        import torch

        if not self.path.is_file():
            return None
        again = f"remove {self.path} to begin anew"
        try:
            held = torch.load(self.path, map_location="cpu", weights_only=True)
            options, state = dict(held["options"]), State(**held["state"])
        except (OSError, RuntimeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError) as error:
            msg = f"{self.path} is no checkpoint of this version; {again}"
            raise ValueError(msg) from error
        others = [name for name in sorted({*options, *self.options}) if options.get(name) != self.options.get(name)]
        if others:
            said = "; ".join(
                f"{name} was {options.get(name, 'not given')}, now {self.options.get(name, 'not given')}"
                for name in others
            )
            msg = f"{self.path} is of a training with other options ({said}); give the same ones to go on, or {again}"
            raise ValueError(msg)
        return state

    def write(self, state: State) -> None:
        """Keep how far a training is, over what was kept before; OSError when the disk refuses."""
        import torch

        held = io.BytesIO()
        torch.save({"options": dict(self.options), "state": vars(state)}, held)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, held.getvalue())

    def remove(self) -> None:
        """Forget it: the training is over."""
        self.path.unlink(missing_ok=True)


def path_for(out: Path) -> Path:
    """Return the checkpoint's file of the training that writes the model folder `out`."""
    out = out.resolve()
    return out.with_name(f"{out.name}.checkpoint")


def digest(plates: Iterable[Plate]) -> str:
    """Return a SHA-256 of training images, as hexadecimal text."""
    found = hashlib.sha256()
    for plate in plates:
        for array in (plate.greys.numpy(), plate.present, plate.fine.numpy()):
            found.update(np.ascontiguousarray(array).data)
        found.update(repr(plate.pixel_m).encode())
    return found.hexdigest()


def state_of(generator: np.random.Generator) -> str:
    """Return a generator's state as JSON, whose whole numbers have any length."""
    return json.dumps(generator.bit_generator.state)


def restore(generator: np.random.Generator, state: str) -> None:
    """Bring a generator to what `state_of` gave."""
    generator.bit_generator.state = json.loads(state)
