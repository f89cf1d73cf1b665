"""When slicing is over: after a duration since it began, or at a time of day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from workflows.steps.slicing import over

BEGAN = datetime(2026, 3, 1, 21, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("latest", "hours", "is_over"),
    [
        ("10 h", 9.9, False), ("10 h", 10.1, True), ("10 h", 40.0, True),  # resumed the day after
        ("07:00", 9.9, False), ("07:00", 10.1, True), ("07:00", 23.0, False),  # the next evening: tomorrow's
    ],
)  # fmt: skip
def test_the_time_is_up(latest: str, hours: float, *, is_over: bool) -> None:
    assert over(latest, BEGAN, BEGAN + timedelta(hours=hours)) is is_over
