"""What a person must know before trusting the labels of a slice, in words."""

from __future__ import annotations

from analysis.core import DOUBTFUL, UNFAMILIAR, SliceNumbers


def warnings(numbers: SliceNumbers) -> list[str]:
    """Return what speaks against a slice's labels, a phrase each; nothing when they are as usual."""
    found: list[str] = []
    if numbers.novelty > UNFAMILIAR:
        found.append("unlike anything the network was trained on: don't trust the labels")
    elif numbers.novelty > DOUBTFUL:
        found.append("perhaps not the kind of image that the network was trained on: look before you trust the labels")
    own = [name for name in numbers.elsewhere if not name.startswith(("before ", "after "))]
    if own:
        found.append(f"another place than the other detector's was shown by {' and '.join(own)}, which was left out")
    return found
