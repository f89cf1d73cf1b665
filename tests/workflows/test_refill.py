"""The refill rule: fires on empty fillable pores, comes to rest on wide ones, keeps its bounds."""

from __future__ import annotations

import pytest

from workflows.recipe import Refill
from workflows.refill import Fill, decide

RULE = Refill(when=0.2, for_images=2, not_within=3, at_most=2)


def run(shares: list[float | None], rule: Refill = RULE) -> list[int]:
    """Return the images after which a fill is asked for, the shares being those of every image whatever is done."""
    known = dict(enumerate(shares, start=1))
    fills = [Fill(0)]
    asked = []
    for image in known:
        if decide(image, {k: v for k, v in known.items() if k <= image}, fills, rule).fill:
            asked.append(image)
            fills.append(Fill(image, known[image - rule.decide_on]))
    return asked


def test_it_fires_when_two_images_running_are_over_the_threshold_and_not_before() -> None:
    assert run([0.02, 0.05, 0.1, 0.15, 0.19, 0.25, 0.18, 0.26, 0.27, 0.3]) == [10]


def test_it_uses_labels_of_the_image_before_only() -> None:
    newest_alone = decide(6, {1: 0.0, 4: 0.1, 5: 0.1, 6: 0.9}, [Fill(0)], RULE)
    assert not newest_alone.fill
    assert newest_alone.value == pytest.approx(0.1)


def test_pores_that_no_fill_reaches_ask_for_no_other() -> None:
    assert run([0.5] * 20) == []


def test_bounds_hold() -> None:
    rising = [0.0, 0.3, 0.4, 0.5, 0.6, 0.6]
    assert run(rising)[0] == 4
    assert len(run([0.0, *[0.5, 0.0, 0.6, 0.6] * 8])) <= RULE.at_most
    every = RULE.replace(at_least_every=5)
    assert run([0.0] * 12, every) == [5, 10]


def test_a_fill_without_effect_makes_the_next_wait_twice_as_long() -> None:
    fills = [Fill(0), Fill(10, 0.4)]
    shares: dict[int, float | None] = {11: 0.35, 12: 0.6, 13: 0.6, 14: 0.6, 15: 0.6, 16: 0.6}
    assert not decide(14, shares, fills, RULE).fill
    assert decide(16, shares, fills, RULE).fill


def test_missing_labels_are_no_evidence() -> None:
    decision = decide(5, {1: 0.0, 2: 0.3, 3: 0.4, 4: None}, [Fill(0)], RULE)
    assert (decision.fill, decision.outcome) == (False, "no evidence")


def test_a_skipped_fill_counts_for_when_the_next_may_come_but_not_as_one_that_was_made() -> None:
    once = RULE.replace(at_most=1)
    shares: dict[int, float | None] = {1: 0.0} | dict.fromkeys(range(2, 12), 0.5)  # pores stay as empty as they were
    skipped = [Fill(0), Fill(4, 0.5, made=False)]
    assert not decide(6, shares, skipped, once).fill
    assert decide(7, shares, skipped, once).fill
    assert not decide(7, shares, [Fill(0), Fill(4, 0.5)], once).fill
