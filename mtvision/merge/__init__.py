"""State dicts in, state dict out; see `docs/merging.md`.

A merger is a function `merge(base, {task: state}, **options) -> state` in the table `MERGERS`. One file holds
one method and has its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.merge.states import MergeError, Parents, State
    from mtvision.merge.table import merge
    from mtvision.merge.vectors import TaskVectors
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["MergeError", "Parents", "State", "TaskVectors", "merge"]
