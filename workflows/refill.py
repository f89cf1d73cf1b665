"""The rule that asks for the next fill: fillable pores stand empty (night.md 5).

A pure function of the recipe and of what is known after each image: a decision can be told, tested and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workflows.recipe import Refill

#: The share must lie above what the last fill left by this much: what a fill can't reach asks for no other.
ABOVE_BASELINE = 0.05
#: A fill that lowers the share by less than this makes the next one wait twice as long.
LEAST_EFFECT = 1 / 3


@dataclass(frozen=True)
class Fill:
    """A fill: after which image (0: before the first), the share that asked for it; not `made`: somebody skipped it."""

    after_image: int
    share: float | None = None
    made: bool = True


@dataclass(frozen=True)
class Decision:
    """What was decided after an image: fill or go on, why, the share that counted and the threshold it met."""

    fill: bool
    outcome: str
    value: float | None
    threshold: float


def decide(image: int, shares: Mapping[int, float | None], fills: Sequence[Fill], rule: Refill) -> Decision:
    """Decide after image `image` (counted from 1).

    Parameters
    ----------
    image : the newest image
    shares : the share of fillable pore area that stands empty (0..1) by image, None where labels never came; only
        images up to `image - rule.decide_on` are looked at
    fills : the fills so far, the recipe's first one (after image 0) among them; one that somebody skipped only keeps
        the next away as long as one that was made
    rule : the recipe's refill
    """
    made = [fill for fill in fills if fill.made]
    last = last_made(fills)
    since = image - (fills[-1].after_image if fills else 0)
    newest = image - rule.decide_on
    seen = {k: share for k, share in shares.items() if last < k <= newest and share is not None}
    value = seen.get(newest)
    baseline = seen[min(seen)] if seen else 0.0
    threshold = max(rule.when, baseline + ABOVE_BASELINE)
    done = sum(1 for fill in made if fill.after_image > 0)
    if done >= rule.at_most:
        return Decision(False, f"at most {rule.at_most} refills, and they are made", value, threshold)
    if rule.at_least_every is not None and since >= rule.at_least_every:
        return Decision(
            True, f"{since} images since the last fill: at least every {rule.at_least_every}", value, threshold
        )
    apart = rule.not_within * (2 if _weak(made, baseline) else 1)
    if since < apart:
        return Decision(False, f"{since} images since the last fill: not within {apart}", value, threshold)
    running = [seen.get(k) for k in range(newest - rule.for_images + 1, newest + 1)]
    if value is None:
        return Decision(False, "no evidence", value, threshold)
    if all(share is not None and share > threshold for share in running):
        return Decision(True, f"over the threshold in {rule.for_images} images running", value, threshold)
    return Decision(False, "below the threshold", value, threshold)


def last_made(fills: Sequence[Fill]) -> int:
    """Return the image after which the last fill was made, 0 without one: shares count from there."""
    return max((fill.after_image for fill in fills if fill.made), default=0)


def _weak(fills: Sequence[Fill], baseline: float) -> bool:
    """Tell whether the last refill lowered the share by less than a third."""
    if not fills or fills[-1].share is None:
        return False
    return baseline > (1.0 - LEAST_EFFECT) * fills[-1].share
