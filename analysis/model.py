"""A model on the disk: the network's weights, what its training images were like, and its card."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from analysis.files import write_whole
from analysis.known import Known
from analysis.phases import Fine
from analysis.reliability import Reliability

if TYPE_CHECKING:
    from analysis.network import Network

WEIGHTS = Path(__file__).parent / "weights"
_KNOWN = "known."


class Card(BaseModel):
    """The model card, card.json beside the weights: where a network comes from, how good it is and where it ends.

    `temperature` divides its scores: fitted on images that it was not trained on, so that of labels given with a
    probability of 0.8 about 80 % are right (Guo et al., ICML 2017, "On calibration of modern neural networks"). A
    model that was taught further has its first one's, times what changed on images of its training.
    `reliability` says how well that holds, by how sure labels are; empty where it was not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str
    weights_sha256: str
    classes: tuple[str, ...]
    detectors: tuple[str, ...]
    base: int = Field(ge=1)
    depth: int = Field(ge=1)
    normalisation: str
    pixel_min_m: float = Field(gt=0)
    pixel_max_m: float = Field(gt=0)
    data: str
    renderer_sha256: str | None
    seed: int
    steps: int = Field(ge=0)
    samples: int = Field(ge=0)
    seconds: float = Field(ge=0)
    figures: dict[str, float]
    reliability: tuple[Reliability, ...] = ()
    limits: tuple[str, ...]
    versions: dict[str, str]
    temperature: float = Field(gt=0)

    @property
    def model_id(self) -> str:
        """The network's name with the beginning of its weights' hash: what a decision records."""
        return f"{self.name}-{self.weights_sha256[:12]}"


@dataclass(frozen=True)
class Model:
    """A network, fused and ready for inference or as it was trained, with what is known of it."""

    card: Card
    network: Network
    known: Known


def load(folder: Path | None = None, *, fused: bool = True) -> Model:
    """Return a model; the package's own when no folder is given. `fused` networks are for inference only.

    ValueError: the folder holds no model, one of another version, or weights that are not the card's.
    """
    from safetensors.torch import load as load_tensors

    from analysis.network import Network, channels_last

    card, data = whole(WEIGHTS if folder is None else folder)
    network = Network(card.base, card.depth)
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in load_tensors(data).items()}
    weights = {key: value for key, value in tensors.items() if not key.startswith(_KNOWN)}
    try:
        known = Known.from_arrays({k.removeprefix(_KNOWN): v.numpy() for k, v in tensors.items() if k not in weights})
        network.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        msg = f"the weights of {folder or WEIGHTS} are another network's than this version's; train the model again"
        raise ValueError(msg) from error
    network.eval()
    if fused:
        network.fuse()
    channels_last(network)
    return Model(card, network, known)


def whole(folder: Path) -> tuple[Card, bytes]:
    """Return a model's card and the bytes of its weights, without a network made of them; ValueError as `load` says."""
    from pydantic import ValidationError

    card_path, weights_path = folder / "card.json", folder / "weights.safetensors"
    if not card_path.is_file() or not weights_path.is_file():
        msg = f"{folder} holds no model: card.json and weights.safetensors are expected; `kintsugi train` makes them"
        raise ValueError(msg)
    try:
        card = Card.model_validate_json(card_path.read_bytes())
    except ValidationError as error:
        lacking = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        msg = f"{card_path} is no card of this version ({lacking}); train the model again"
        raise ValueError(msg) from error
    data = weights_path.read_bytes()
    if hashlib.sha256(data).hexdigest() != card.weights_sha256:
        msg = f"{weights_path} is not the file that {card_path.name} describes: its SHA-256 differs"
        raise ValueError(msg)
    if len(card.classes) != len(Fine):
        msg = f"{card_path} names {len(card.classes)} classes; this version tells {len(Fine)}"
        raise ValueError(msg)
    return card, data


def save(folder: Path, network: Network, known: Known, card: Card) -> Card:
    """Write a model into a folder; return its card with the hash of the weights."""
    import torch
    from safetensors.torch import save as tensors_in

    tensors = {
        key: (value.half() if value.ndim == 4 else value).contiguous() for key, value in network.state_dict().items()
    } | {f"{_KNOWN}{key}": torch.from_numpy(value) for key, value in known.arrays().items()}
    weights = tensors_in(tensors, metadata={"model": card.name})
    card = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "weights.safetensors", weights)
    write_card(folder, card)
    return card


def write_card(folder: Path, card: Card) -> None:
    """Write card.json into a model folder."""
    write_whole(folder / "card.json", (card.model_dump_json(indent=1) + "\n").encode("utf-8"))
