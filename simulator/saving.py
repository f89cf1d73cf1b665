"""The virtual machine's state on disk: what can't be built again from the seed, replaced whole after every action."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instrument import durable
from instrument.errors import BadData, Refused
from simulator.block import Block, Maps, block_again
from simulator.condition import Condition
from simulator.options import Options

STATE, FORM = "state.json", 3


class Store:
    """A state folder.

    `state.json` is replaced whole and names what belongs to it: how many files of changed voxels, and which file of
    each map. Those are written once and never changed; maps that nothing names any more are deleted. It outlives its
    process; it does not wait for the disk, as a real machine does not wait for its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        durable.make_dir(folder)
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
        durable.atomic_write_bytes(self.folder / STATE, json.dumps(state).encode(), sync=False)
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
                np.save(self._map_path(name, number), array)  # under a new name: nobody reads it before STATE says so
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
        path = self.folder / STATE
        if not path.exists():
            return None
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            saved = Options.model_validate(state["options"])
            now = Condition.model_validate(state["condition"])
            if state["form"] != FORM:
                msg = f"it was saved by another version of the virtual microscope (form {state['form']}, here {FORM})"
                raise ValueError(msg)
            maps = self._load_maps(state["maps"], tuple(state["shape"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
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
