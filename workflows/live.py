"""The progress of a run on the terminal: one line that changes, or plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


def duration(seconds: float | None) -> str:
    """Return seconds as people say them: "42 s", "12 min", "3 h 05 min"; "?" for None."""
    if seconds is None:
        return "?"
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def progress_line(
    step: str,
    doing: str,
    slice_k: int,
    slice_n: int | None,
    seconds_left: float | None,
    fractions: Mapping[str, float] | None,
) -> str:
    """Return one line: step, slice k of n, time left on the instrument, the last phase fractions."""
    parts = [step]
    if slice_k:
        parts.append(f"slice {slice_k}" + (f" of {slice_n}" if slice_n else ""))
    if doing:
        parts.append(doing)
    if seconds_left is not None:
        parts.append(f"{duration(seconds_left)} left")
    if fractions:
        parts.append("  ".join(f"{name} {100 * value:.0f} %" for name, value in fractions.items()))
    return " · ".join(parts)


class Live:
    """Shows where a run stands. `say` prints a line that stays; `update` changes the one that moves.

    Without a terminal only what `say` gets, each new step and each new slice are printed.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._shown: tuple[str, int] = ("", 0)
        self.last = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def ask(self, question: str) -> bool:
        """Ask the person at the terminal; True for yes."""
        from rich.prompt import Confirm

        if self._status is not None:
            self._status.stop()
        try:
            return Confirm.ask(question, console=self._console)
        finally:
            if self._status is not None:
                self._status.start()

    def update(
        self,
        step: str,
        *,
        doing: str = "",
        slice_k: int = 0,
        slice_n: int | None = None,
        seconds_left: float | None = None,
        fractions: Mapping[str, float] | None = None,
    ) -> None:
        """Show where the run stands now; fractions are 0..1 by phase."""
        line = progress_line(step, doing, slice_k, slice_n, seconds_left, fractions)
        self.last = line
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(line))
        elif self._shown != (step, slice_k):
            self.say(line)
        self._shown = (step, slice_k)
