"""Searches whose result is plain data that a config can hold."""

from mtvision.search.problem import Searcher, SearchProblem

__all__ = ["SearchProblem", "Searcher"]
