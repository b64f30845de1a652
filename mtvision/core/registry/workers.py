"""Plugins in processes that this one starts: they have to be there before their classes are unpickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import ForkingPickler
from typing import Any

from mtvision.core.registry.outside import OUTSIDE


@dataclass(frozen=True)
class WorkerStart:
    """Loads this process's plugins in a worker process; `initializer=WorkerStart.here()` of a process pool.

    A worker unpickles classes of a plugin by the name of their module. A module that was given as a file
    cannot be imported by that name, unless the worker has loaded the plugin before.

    Args:
        load: the loader.
        names: of the plugins.
    """

    load: Callable[[Sequence[str]], object]
    names: tuple[str, ...]

    @classmethod
    def here(cls) -> WorkerStart:
        """For workers of this process."""
        return cls(OUTSIDE.load, tuple(OUTSIDE.named))

    def __call__(self) -> None:
        """Load the plugins."""
        self.load(self.names)


def reduced_after_plugins(parts: Any) -> Any:
    """What `__reduce_ex__` returns for an object that is passed to a new process, e.g. of a `DataLoader`.

    Args:
        parts: what `__reduce_ex__` would return otherwise; it is returned unless a process is being started.
    """
    start = WorkerStart.here()
    if not start.names or get_spawning_popen() is None:  # type: ignore[no-untyped-call]
        return parts
    return _unpickled, (start, bytes(ForkingPickler.dumps(_Reduced(parts))))


@dataclass(frozen=True)
class _Reduced:
    """Unpickles as the object that the parts describe."""

    parts: Any

    def __reduce__(self) -> Any:
        make, arguments, *rest = self.parts
        return _made, (make, arguments), *rest  # pickle accepts `make` itself for its own class only


def _made(make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return make(*arguments)


def _unpickled(start: WorkerStart, content: bytes) -> Any:
    start()
    return pickle.loads(content)
