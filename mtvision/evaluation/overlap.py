"""Reading, computing and measuring at the same time, with results in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class Behind:
    """Calls in a thread, one after another, while the caller continues. It waits only for the call before.

    What a call raises comes out of the next call, of `wait`, or of the end of the block.

    >>> done = []
    >>> with Behind() as behind:
    ...     for item in range(3):
    ...         behind(done.append, item)
    >>> done
    [0, 1, 2]
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[Any] | None = None

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Wait for the call before, then begin this one."""
        self.wait()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1)
        self._last = self._thread.submit(function, *arguments)

    def wait(self) -> None:
        """Wait for the last call; raises what it raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Wait and end the thread."""
        try:
            self.wait()
        finally:
            self._end()

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:  # it is the first one, and the last call may hide it
            self._last = None
            self._end()


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items; the next one is made in a thread while the caller works on one.

    >>> list(ahead("abc"))
    ['a', 'b', 'c']
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        following: Future[Any] = thread.submit(next, iterator, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, iterator, end)
            yield item
