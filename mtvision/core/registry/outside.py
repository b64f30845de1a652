"""What tables and the loader of plugins share: who registers at the moment, where else a name may be.

`mtvision.recipe.plugins` is the loader. It stands in a later layer and connects itself here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """The plugin whose module is imported at the moment.

    Args:
        module: its dotted name.
        named: whether a config, the command line or a caller names it; an entry point alone does not.
    """

    module: str
    named: bool


class Outside:
    """The connection of the tables to the loader; there is one, `OUTSIDE`.

    Attributes:
        origin: the plugin that registers at the moment, or None.
        search: called when a table has no entry of a name. It may register more; a second call does nothing.
        load: loads plugins by their names, in a process that this one started.
        named: names of the plugins that such a process has to load.
    """

    def __init__(self) -> None:
        self.origin: Origin | None = None
        self.search: Callable[[], object] = _nothing
        self.load: Callable[[Sequence[str]], object] = _load_none
        self.named: list[str] = []

    @contextmanager
    def registering(self, origin: Origin) -> Iterator[None]:
        """Entries that are registered inside the block come from a plugin."""
        before, self.origin = self.origin, origin
        try:
            yield
        finally:
            self.origin = before


def _nothing() -> None:
    """Find no further entry."""


def _load_none(names: Sequence[str]) -> None:
    """Load nothing: the loader is not connected, so there are no plugins."""


OUTSIDE = Outside()
