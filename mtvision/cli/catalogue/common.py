"""What the commands of this folder share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def holds_all(text: str, words: Sequence[str]) -> bool:
    """Whether a text holds every word, in upper or lower case.

    >>> holds_all("MTMamba on NYUD-v2", ["mamba", "nyud"])
    True
    """
    return all(word.lower() in text.lower() for word in words)


def none_holds(what: str, words: Sequence[str]) -> str:
    """The line for an empty list.

    >>> none_holds("decoder", ["a", "b"])
    "no decoder holds 'a' and 'b'."
    """
    return f"no {what} holds {' and '.join(map(repr, words))}."


def refuse_existing(files: Sequence[Path], *, overwrite: bool) -> None:
    """Keep the files that are there.

    Raises:
        FileExistsError: one of them is, and `overwrite` is off.
    """
    for file in files:
        if file.exists() and not overwrite:
            raise FileExistsError(f"{file} exists; give another name, or replace it with --overwrite.")
