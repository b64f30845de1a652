"""A sample of changes that depends on the seed and on the changed code alone."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from mutation.candidates import Candidate


def sample(
    modules: Mapping[str, Sequence[Candidate]],
    size: int,
    seed: int,
    valid: Callable[[Candidate], bool] = lambda candidate: True,
) -> list[Candidate]:
    """`size` changes over all modules, at most one at each place of the code.

    Every module with a place to change gets one; the rest is shared out by the number of places. Within a
    module the places with the smallest hash of seed and content are taken: an edit moves only changes near.

    Args:
        modules: the candidates of each module.
        size: number of changes; fewer if there are fewer places.
        seed: another seed is another sample.
        valid: whether a candidate is a program of its own; asked only for what would be taken.
    """
    places = {name: _places(candidates, seed) for name, candidates in sorted(modules.items())}
    shares = quotas({name: len(found) for name, found in places.items()}, size)
    taken = []
    for name, found in places.items():
        chosen: list[Candidate] = []
        for options in found:
            if len(chosen) == shares[name]:
                break
            chosen += next(([one] for one in options if valid(one)), [])
        taken += sorted(chosen, key=lambda one: (one.line, one.column))
    return taken


def quotas(places: Mapping[str, int], size: int) -> dict[str, int]:
    """One change for each module, the others in proportion to the places, by largest remainders.

    >>> quotas({"a": 10, "b": 30, "c": 0}, 6)
    {'a': 2, 'b': 4, 'c': 0}
    """
    shares = {name: min(count, 1) for name, count in places.items()}
    rest = min(size, sum(places.values())) - sum(shares.values())
    free = {name: places[name] - shares[name] for name in places}
    total = sum(free.values())
    if rest <= 0 or not total:
        return shares
    exact = {name: rest * count / total for name, count in free.items()}
    for name, share in exact.items():
        shares[name] += int(share)
    left = rest - sum(int(share) for share in exact.values())
    for name in sorted(exact, key=lambda one: (int(exact[one]) - exact[one], one))[:left]:
        shares[name] += 1
    return shares


def _places(candidates: Sequence[Candidate], seed: int) -> list[list[Candidate]]:
    """The candidates of each place in the order of their hash; places in the order of theirs."""
    found: dict[str, list[Candidate]] = defaultdict(list)
    for one in candidates:
        found[one.site].append(one)
    ranked = sorted(found, key=lambda site: _rank(seed, site))
    return [sorted(found[site], key=lambda one: _rank(seed, one.content)) for site in ranked]


def _rank(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}|{text}".encode()).hexdigest()
