"""Searches whose result is plain data that a config can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.architecture.tree import Tree
    from mtvision.search.branching import BMTASSearcher, LTBSearcher
    from mtvision.search.grouping import GroupingSearcher
    from mtvision.search.problem import Searcher, SearchProblem
    from mtvision.search.rsa import RSASearcher
    from mtvision.search.sub_tuning import SubTuningSearcher
    from mtvision.search.width_table import BudgetError, WidthTable
    from mtvision.search.widths import WidthSearcher
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "BMTASSearcher",
    "BudgetError",
    "GroupingSearcher",
    "LTBSearcher",
    "RSASearcher",
    "SearchProblem",
    "Searcher",
    "SubTuningSearcher",
    "Tree",
    "WidthSearcher",
    "WidthTable",
]
