"""The virtual machine's state on disk: what can't be built again from the seed, replaced whole after every action."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrument import durable
from instrument.errors import BadData, Refused
from simulator.block import Block, Maps, new_block
from simulator.condition import Condition
from simulator.options import Options

STATE, FORM = "state.npz", 1


class Store:
    """A state folder. Changed voxels lie in immutable files; `state.npz` names how many of them count."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        durable.make_dir(folder)
        self._written = 0

    def save(self, options: Options, now: Condition, block: Block) -> Condition:
        """Make the machine's state durable; return the condition as saved."""
        while self._written < len(block.changes):
            number = self._written + 1
            index = block.changes[self._written]
            data = io.BytesIO()
            np.savez_compressed(data, step=np.diff(index, prepend=0).astype(np.uint32))
            durable.atomic_write_bytes(self.folder / f"change-{number:04d}.npz", data.getvalue())
            self._written = number
        now = now.replace_fast(changes=self._written, features=block.features, film_beam=block.film_beam)
        texts = {"options": options.model_dump_json(), "condition": now.model_dump_json()}
        packed = {name: np.frombuffer(text.encode(), np.uint8) for name, text in texts.items()}
        data = io.BytesIO()
        arrays: dict[str, Any] = {"form": np.array([FORM]), **packed, **block.maps.copies()}
        np.savez(data, **arrays)
        durable.atomic_write_bytes(self.folder / STATE, data.getvalue())
        return now

    def load(self, options: Options) -> tuple[Condition, Block] | None:
        """Return the saved machine, None where none was saved; BadData where files are damaged.

        Refused where it was saved with other options: another specimen is not this one.
        """
        path = self.folder / STATE
        if not path.exists():
            return None
        try:
            with np.load(path) as held:
                saved = Options.model_validate_json(_text(held["options"]))
                now = Condition.model_validate_json(_text(held["condition"]))
                maps = Maps(**{name: held[name] for name in ("surface", "face", "relief", "pending")})
        except (OSError, ValueError, KeyError) as error:
            msg = f"{path} cannot be read as the state of a virtual microscope: {error}"
            raise BadData(msg, path=str(path)) from error
        if saved.model_copy(update={"pace": options.pace}) != options:
            msg = f"{self.folder} holds the state of another virtual microscope: seed {saved.seed}, not as asked for"
            raise Refused(
                msg, rule="simulator-same-options", field="url", value=options.model_dump_json(exclude_defaults=True),
                limit=saved.model_dump_json(exclude_defaults=True), remedy="use the URL it began with or a new folder",
            )  # fmt: skip
        block = new_block(options)
        for feature in now.features:
            block.top.write(feature)
        block.features = now.features
        block.film_beam = now.film_beam
        flat = block.volume.labels.reshape(-1)
        for number in range(1, now.changes + 1):
            index = self._change(number)
            flat[index] = np.uint8(4)
            block.changes.append(index)
        self._written = now.changes
        block.maps = maps
        return now, block

    def _change(self, number: int) -> NDArray[np.int64]:
        path = self.folder / f"change-{number:04d}.npz"
        try:
            with np.load(path) as held:
                return np.asarray(np.cumsum(held["step"].astype(np.int64)), np.int64)
        except (OSError, ValueError, KeyError) as error:
            msg = f"{path} cannot be read: a change of the virtual specimen is lost"
            raise BadData(msg, path=str(path)) from error


def _text(packed: NDArray[np.uint8]) -> str:
    return packed.tobytes().decode()
