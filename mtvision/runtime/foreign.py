"""Failures inside libraries of others that have no exception of their own for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ForeignError(Exception):
    """What a library raised, as `Kind: message`.

    Args:
        error: the exception itself.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.error = error

    @property
    def first_line(self) -> str:
        """The text without what follows its first line."""
        return str(self).splitlines()[0]


@contextmanager
def foreign_errors(*passed: type[Exception]) -> Iterator[None]:
    """Turn every exception of a block into `ForeignError`; the block should be one call of a library.

    Args:
        passed: exceptions that stay as they are.

    Raises:
        ForeignError: the library failed.

    >>> with foreign_errors():
    ...     int("one")
    Traceback (most recent call last):
    mtvision.runtime.foreign.ForeignError: ValueError: invalid literal for int() with base 10: 'one'
    """
    try:
        yield
    except passed:
        raise
    # scipy.io, kornia-rs and unpicklers raise whatever damaged bytes lead them to. W&B and
    # submitit raise what a network or a job raised. No list of their exceptions would be complete.
    except Exception as error:
        raise ForeignError(error) from error
