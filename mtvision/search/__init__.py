"""Searches whose result is plain data that a config can hold."""

from mtvision.search.branching import BMTASSearcher, LTBSearcher
from mtvision.search.grouping import GroupingSearcher
from mtvision.search.problem import Searcher, SearchProblem
from mtvision.search.rsa import RSASearcher
from mtvision.search.tree import Tree
from mtvision.search.width_table import BudgetError, WidthTable
from mtvision.search.widths import WidthSearcher

__all__ = [
    "BMTASSearcher",
    "BudgetError",
    "GroupingSearcher",
    "LTBSearcher",
    "RSASearcher",
    "SearchProblem",
    "Searcher",
    "Tree",
    "WidthSearcher",
    "WidthTable",
]
