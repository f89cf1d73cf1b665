"""Undoes what an act has changed where it fails: why it failed is told, whatever becomes of the undoing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from instrument.errors import InstrumentError, Unsafe

log = logging.getLogger(__name__)


@contextmanager
def undone(undo: Callable[[], None]) -> Iterator[None]:
    """Undo after an error, which goes on; that undoing fails too is logged, and is evidence of the first error.

    Raises
    ------
    Unsafe : by undoing, in place of the first error: a person is needed now
    """
    try:
        yield
    except BaseException as first:
        try:
            undo()
        except Unsafe:
            raise
        except InstrumentError as second:
            log.error("not undone: %s", second.message)
            if isinstance(first, InstrumentError):
                first.evidence["not_undone"] = second.message
        raise
