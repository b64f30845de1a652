"""Failures of libraries that have no exception of their own."""

from __future__ import annotations

import pytest

from mtvision.core.files.foreign import ForeignError, foreign_errors


def fail(error, *passed):
    with foreign_errors(*passed):
        raise error


@pytest.mark.parametrize("error", [Exception("bare"), KeyError("x"), MemoryError("much\nmore")])
def test_everything_becomes_one_error(error):
    with pytest.raises(ForeignError) as caught:
        fail(error)
    assert caught.value.error is error
    assert caught.value.__cause__ is error
    assert caught.value.first_line == f"{type(error).__name__}: {error}".splitlines()[0]


def test_an_error_without_words_has_a_first_line():
    with pytest.raises(ForeignError, match=r"^RuntimeError: $"):
        fail(RuntimeError())


def test_some_may_pass():
    with pytest.raises(ImportError):
        fail(ImportError("no wandb"), ImportError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_nobody_is_kept_from_stopping_the_program(error):
    with pytest.raises(error):
        fail(error())
