"""The virtual machine's state on disk: what can't be built again from the seed, replaced whole after every action."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrument import durable
from instrument.errors import BadData, Refused
from simulator.block import Block, Maps, block_again
from simulator.condition import Condition
from simulator.options import Options

FORM = 3


def read(folder: Path) -> dict[str, Any] | None:
    """Return what was saved last in a state folder, None where nothing was. OSError, ValueError where it is damaged."""
    while place := newest(folder):
        try:
            found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue  # a newer one has taken its place meanwhile
        return found
    return None


def newest(folder: Path) -> Path | None:
    """Return the file that was saved last in a state folder, None where nothing was."""
    return max(_states(folder), key=_number, default=None)


def _states(folder: Path) -> list[Path]:
    return list(folder.glob("state*.json"))


def _number(state: Path) -> int:
    """Return how many times had been saved; 0 for the only file there was in an earlier version."""
    return int(state.stem.partition("-")[2] or 0)


class Store:
    """A state folder.

    `state-*.json` is written whole, under a new name (a disk takes its time to put a file in the place of another),
    and names what belongs to it: how many files of changed voxels, and which file of each map. Those are written once
    and never changed; what the newest state doesn't name is deleted. It outlives its process; it does not wait for the
    disk, as a real machine does not wait for its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        durable.make_dir(folder)
        self._older = _states(folder)
        self._saved = max(map(_number, self._older), default=0)
        self._written = 0
        self._maps: dict[str, NDArray[np.float32]] = {}
        self._numbers: dict[str, int] = {}

    def save(self, options: Options, now: Condition, block: Block) -> Condition:
        """Make the machine's state durable; return the condition as saved."""
        while block.changes:
            index = block.changes[0]
            data = io.BytesIO()
            np.savez_compressed(data, step=np.diff(index, prepend=0))
            durable.atomic_write_bytes(self.folder / f"change-{self._written + 1:04d}.npz", data.getvalue(), sync=False)
            self._written += 1
            block.changes.pop(0)
        old = dict(self._numbers)
        self._save_maps(block.maps)
        now = now.replace_fast(changes=self._written, features=block.features, film_beam=block.film_beam)
        state = {
            "form": FORM, "maps": self._numbers, "shape": block.maps.surface.shape,
            "options": options.model_dump(mode="json"), "condition": now.model_dump(mode="json"),
        }  # fmt: skip
        self._saved += 1
        place = self.folder / f"state-{self._saved:09d}.json"
        durable.atomic_write_bytes(place, json.dumps(state).encode(), sync=False)
        for older in self._older:
            older.unlink(missing_ok=True)
        self._older = [place]
        for name, number in old.items():
            if number and self._numbers[name] != number:
                self._map_path(name, number).unlink(missing_ok=True)
        return now

    def _save_maps(self, maps: Maps) -> None:
        """Write the maps that have changed: they are replaced as wholes, so that identity tells; 0 is all zero."""
        arrays = maps.copies()
        for name, array in arrays.items():
            if self._maps.get(name) is array:
                continue
            number = 0
            if array.any():
                number = max(self._numbers.values(), default=0) + 1
                np.save(self._map_path(name, number), array)  # under a new name: nobody reads it before a state says so
            self._numbers[name] = number
        self._maps = arrays

    def _map_path(self, name: str, number: int) -> Path:
        return self.folder / f"map-{name}-{number:06d}.npy"

    def _load_maps(self, numbers: dict[str, int], shape: tuple[int, int]) -> Maps:
        nothing = np.zeros(shape, np.float32)
        held = {
            name: np.load(self._map_path(name, number)) if number else nothing.copy()
            for name, number in numbers.items()
        }
        maps = Maps(**held)
        self._numbers, self._maps = dict(numbers), maps.copies()
        return maps

    def load(self, options: Options) -> tuple[Condition, Block] | None:
        """Return the saved machine, None where none was saved; BadData where files are damaged.

        Refused where it was saved with other options: another specimen is not this one.
        """
        try:
            state = read(self.folder)
            if state is None:
                return None
            saved = Options.model_validate(state["options"])
            now = Condition.model_validate(state["condition"])
            if state["form"] != FORM:
                msg = f"it was saved by another version of the virtual microscope (form {state['form']}, here {FORM})"
                raise ValueError(msg)
            maps = self._load_maps(state["maps"], tuple(state["shape"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            path = newest(self.folder)
            msg = f"{path} cannot be read as the state of a virtual microscope: {error}"
            raise BadData(msg, path=str(path)) from error
        may_differ = {"pace": options.pace, "fault": options.fault, "faults": options.faults}
        if saved.model_copy(update=may_differ) != options:
            msg = f"{self.folder} holds the state of another virtual microscope: seed {saved.seed}, not as asked for"
            raise Refused(
                msg, rule="simulator-same-options", field="url", value=options.model_dump_json(exclude_defaults=True),
                limit=saved.model_dump_json(exclude_defaults=True), remedy="use the URL it began with or a new folder",
            )  # fmt: skip
        changes = (self._change(number) for number in range(1, now.changes + 1))
        block = block_again(options, maps, now.features, changes)
        block.film_beam = now.film_beam
        self._written = now.changes
        return now, block

    def _change(self, number: int) -> NDArray[np.int64]:
        path = self.folder / f"change-{number:04d}.npz"
        try:
            with np.load(path) as held:
                return np.asarray(np.cumsum(held["step"].astype(np.int64)), np.int64)
        except (OSError, ValueError, KeyError) as error:
            msg = f"{path} cannot be read: a change of the virtual specimen is lost"
            raise BadData(msg, path=str(path)) from error
