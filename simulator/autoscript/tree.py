"""What the client's tree is made of: nodes that know their path, and settings with a value, limits or a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Self

from instrument.errors import InstrumentError
from simulator.autoscript.structures import Limits, meant


class ApplicationServerException(Exception):
    """The microscope's server refuses, or fails."""


@contextmanager
def serving() -> Iterator[None]:
    """Tell whatever the virtual microscope complains about as its server would."""
    try:
        yield
    except InstrumentError as error:
        raise ApplicationServerException(error.message) from error


class Node:
    """A branch of the tree. Names that are not there raise an error that says which path was asked for."""

    def __init__(self, path: str) -> None:
        self.__dict__["_path"] = path

    def __getattr__(self, name: str) -> Any:
        path = self.__dict__.get("_path", type(self).__name__)
        if name.startswith("__"):
            raise AttributeError(name)
        msg = f"{path}.{name} is not there: this microscope lacks it, or the emulation does{self._meant(name)}"
        raise AttributeError(msg)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self.__dict__ and not hasattr(type(self), name):
            msg = f"{self._path}.{name} is not there and can't be set to {value!r}{self._meant(name)}"
            raise AttributeError(msg)
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<{self._path}>"

    def _meant(self, name: str) -> str:
        return meant(name, (*self.__dict__, *dir(type(self))))

    def with_members(self, **members: Any) -> Self:
        """Return the node with further members."""
        self.__dict__.update(members)
        return self


class Setting(Node):
    """A value that is read and set, with limits or a list of what it takes; setting anything else raises.

    Parameters
    ----------
    get, set : None for `set`: it can't be set
    limits : of numbers and points, or a function that returns them
    available : a function that returns the values it takes
    """

    def __init__(
        self, path: str, get: Callable[[], Any], set: Callable[[Any], None] | None = None, *,
        limits: Any = None, available: Callable[[], Sequence[Any]] | None = None, **members: Any,
    ) -> None:  # fmt: skip
        super().__init__(path)
        self.with_members(_get=get, _set=set, _limits=limits, _available=available, **members)

    @property
    def value(self) -> Any:
        return self._get()

    @value.setter
    def value(self, value: Any) -> None:
        if self._set is None:
            msg = f"{self._path}.value can only be read"
            raise AttributeError(msg)
        self._check(value)
        with serving():
            self._set(value)

    @property
    def limits(self) -> Any:
        if self._limits is None:
            msg = f"{self._path}.limits is not there"
            raise AttributeError(msg)
        return self._limits() if callable(self._limits) else self._limits

    @property
    def available_values(self) -> list[Any]:
        if self._available is None:
            msg = f"{self._path}.available_values is not there"
            raise AttributeError(msg)
        return list(self._available())

    def _check(self, value: Any) -> None:
        if self._available is not None and isinstance(value, str) and value not in self._available():
            shown = ", ".join(str(one) for one in self._available())
            msg = f"{self._path}: {value!r} is not available; available values: {shown}"
            raise ApplicationServerException(msg)
        if self._limits is None:
            return
        limits = self.limits
        both = not isinstance(limits, Limits)
        parts = [(value.x, limits.limits_x), (value.y, limits.limits_y)] if both else [(value, limits)]
        for part, (low, high) in [(part, (one.min, one.max)) for part, one in parts]:
            room = 1e-9 * max(abs(low), abs(high))
            if not low - room <= float(part) <= high + room:  # NaN is nowhere
                msg = f"{self._path}: {float(part):g} is out of range; allowed: {low:g} to {high:g}"
                raise ApplicationServerException(msg)


def held_setting(path: str, held: dict[str, float], name: str, limits: Limits | None = None) -> Setting:
    """Return a number that is only kept."""
    return Setting(path, lambda: held[name], lambda value: held.__setitem__(name, float(value)), limits=limits)


class Switch(Node):
    """Something that is turned on and off."""

    def __init__(self, path: str, *, is_on: bool = False) -> None:
        super().__init__(path)
        self.with_members(_is_on=is_on)

    @property
    def is_on(self) -> bool:
        return bool(self._is_on)

    def turn_on(self) -> None:
        self.__dict__["_is_on"] = True

    def turn_off(self) -> None:
        self.__dict__["_is_on"] = False


class Absent(Node):
    """Hardware that this microscope lacks: it says so (`is_installed` is False), and has `Lacking` members."""

    def __init__(self, path: str, **members: Any) -> None:
        super().__init__(path)
        self.with_members(**members)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return False if name.startswith("is_") else Lacking(f"{self._path}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise _not_installed(f"{self._path}.{name}")


class Lacking(Node):
    """A setting or function of hardware that isn't there: whatever is done with it fails, and names it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise _not_installed(f"{self._path}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise _not_installed(f"{self._path}.{name}")

    def _fail(self, *_arguments: Any, **_named: Any) -> NoReturn:
        raise _not_installed(self._path)

    __call__ = __bool__ = __eq__ = __float__ = __iter__ = __getitem__ = _fail
    __hash__ = None  # type: ignore[assignment]


def _not_installed(path: str) -> ApplicationServerException:
    return ApplicationServerException(f"{path} is not installed on this microscope")
