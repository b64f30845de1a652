"""What a person watches while a command works. It goes to stderr; stdout has results only.

On a terminal there are bars. Elsewhere (a file, a pipe, a scheduler's log) there are plain lines, not more
than one in half a minute.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")
LINE_SECONDS = 30.0
"""Least time between two plain lines of one counter."""


def messages(*, quiet: bool = False) -> Console:
    """Console for what happens, on stderr. Lines are not wrapped unless stderr is a terminal.

    Args:
        quiet: print nothing, e.g. on all processes but the first.
    """
    console = Console(stderr=True, quiet=quiet, highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


def bars(
    console: Console,
    *columns: ProgressColumn,
    count: ProgressColumn | None = None,
    transient: bool = False,
) -> Progress:
    """Bars with a description, a count, the time so far and the time left; nothing but on a terminal.

    Args:
        console: from `messages`.
        columns: further ones, at the right.
        count: how the count is shown, by default `done/total`.
        transient: remove the bars at the end.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        count or MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *columns,
        console=console,
        transient=transient,
        disable=console.quiet or not console.is_terminal,
    )


class Counter:
    """How much of something is done.

    Args:
        title: of what.
        total: when it is all done.
        progress: where the bar is.
    """

    def __init__(self, title: str, total: int, progress: Progress) -> None:
        self._title, self._total, self._done = title, total, 0
        self._progress = progress
        self._task = progress.add_task(title, total=total)
        self._told = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self.reach(self._done + count)

    def reach(self, done: int) -> None:
        """So many are done in all."""
        self._done = done
        self._progress.update(self._task, completed=done)
        now = time.monotonic()
        if now - self._told >= LINE_SECONDS:
            self._told = now
            self.tell()

    def tell(self) -> None:
        """Write a plain line, unless there is a bar."""
        if self._progress.disable:
            line = f"{self._title}: {self._done} of {self._total}"
            self._progress.console.print(line, markup=False, soft_wrap=True)


@contextmanager
def counting(
    title: str, total: int, *, quiet: bool = False, transient: bool = False, console: Console | None = None
) -> Iterator[Counter]:
    """A bar, or plain lines, for as long as the block runs.

    Args:
        title: of what is counted.
        total: when it is all done.
        quiet: show nothing.
        transient: nothing remains of it at the end.
        console: by default one from `messages`.
    """
    with bars(console or messages(quiet=quiet), transient=transient) as progress:
        counter = Counter(title, total, progress)
        yield counter
        if not transient:
            counter.tell()


@contextmanager
def reading(path: Path, *, quiet: bool = False) -> Iterator[BinaryIO]:
    """A large file open for reading, with the bytes read so far as progress.

    Raises:
        OSError: the file cannot be opened.
    """
    console = messages(quiet=quiet)
    with (
        bars(console, count=DownloadColumn()) as progress,
        progress.open(path, "rb", description=path.name) as file,
    ):
        if progress.disable:
            console.print(f"reading {path.name}, {path.stat().st_size / 1e6:.0f} MB", markup=False)
        yield file


def track(
    items: Iterable[Item],
    title: str,
    total: int,
    *,
    quiet: bool = False,
    transient: bool = False,
    console: Console | None = None,
) -> Iterator[Item]:
    """The items, counted while they are used; arguments as `counting`."""
    with counting(title, total, quiet=quiet, transient=transient, console=console) as counter:
        for item in items:
            yield item
            counter.advance()
