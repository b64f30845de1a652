"""Partitions of a small set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeVar

T = TypeVar("T")


def set_partitions(items: Sequence[T]) -> Iterator[tuple[tuple[T, ...], ...]]:
    """All partitions of `items`, each once; 1, 2, 5, 15, 52 for one to five items (Bell numbers).

    Groups keep the order of `items` and are sorted by their first item.

    >>> list(set_partitions("ab"))
    [(('a', 'b'),), (('a',), ('b',))]
    """
    if not items:
        yield ()
        return
    *rest, last = items
    for partition in set_partitions(rest):
        for index, group in enumerate(partition):
            yield (*partition[:index], (*group, last), *partition[index + 1 :])
        yield (*partition, (last,))


def refinements(partition: Sequence[Sequence[T]]) -> Iterator[tuple[tuple[T, ...], ...]]:
    """All partitions that split the groups of `partition` further, itself included."""
    for parts in product(*(list(set_partitions(list(group))) for group in partition)):
        yield tuple(group for part in parts for group in part)
