"""`python -m fuzz`: change valid files at random, read them, print what became of them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count

from fuzz.attempt import BAD, GOOD, Result, reference
from fuzz.pool import run
from fuzz.readers import READERS
from fuzz.seeds import WITH_CHECKSUM

TOLD = 3
"""How many results of one kind and outcome are shown."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 if anything bad was found."""
    options = _options(arguments)
    kinds = [kind for kind in READERS if any(text in kind for text in options.only)]
    for kind in kinds:
        reference(
            kind
        )  # the valid file itself has to be read; also imports everything before processes start
    total = options.count * len(kinds) if options.each else options.count
    each = -(-total // len(kinds))
    numbers = range(options.first, options.first + each)
    start = time.monotonic()
    jobs = ((kind, number) for number in numbers for kind in kinds)
    results = []
    for done, result in zip(count(1), run(jobs, options.workers, options.seed), strict=False):
        results.append(result)
        if done % 1000 == 0:
            print(f"{done} of {each * len(kinds)} files", file=sys.stderr, flush=True)
    bad = [result for result in results if result.outcome in BAD]
    if options.json:
        print(json.dumps(as_json(results), indent=1))
    else:
        print(table(results))
        print(f"{len(results)} files in {time.monotonic() - start:.0f} s, {len(bad)} bad outcomes.")
    for line in told(results if options.all else bad):
        print(line, file=sys.stderr)
    return 1 if bad else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="files in all (5000)")
    parser.add_argument("--each", action="store_true", help="--count is the number of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation of each kind (0)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is other mutations (0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names of kinds")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--all", action="store_true", help="show examples of good outcomes too")
    return parser.parse_args(arguments)


def counts(results: Sequence[Result]) -> dict[str, Counter[str]]:
    """{kind: {outcome: number}}."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        found.setdefault(result.kind, Counter())[result.outcome] += 1
    return found


def as_json(results: Sequence[Result]) -> dict[str, object]:
    """The table and the bad results, as plain data."""
    bad = [result for result in results if result.outcome in BAD]
    return {
        "files": len(results),
        "kinds": {
            kind: {"checksum": kind in WITH_CHECKSUM, **{name: numbers[name] for name in (*GOOD, *BAD)}}
            for kind, numbers in sorted(counts(results).items())
        },
        "bad": [vars(result) for result in bad],
    }


def table(results: Sequence[Result]) -> str:
    """Kinds and outcomes; kinds with a checksum have a star."""
    rows = [("kind", *GOOD, *BAD)]
    found = counts(results)
    for kind in sorted(found):
        star = " *" if kind in WITH_CHECKSUM else ""
        rows.append((kind + star, *(str(found[kind][name] or "·") for name in (*GOOD, *BAD))))
    sums = sum(found.values(), Counter())
    rows.append(("all", *(str(sums[name] or "·") for name in (*GOOD, *BAD))))
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if index == 0 else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def told(results: Sequence[Result]) -> list[str]:
    """A few results of each kind and outcome."""
    shown: Counter[tuple[str, str]] = Counter()
    lines = []
    for result in results:
        shown[result.kind, result.outcome] += 1
        if shown[result.kind, result.outcome] <= TOLD:
            lines.append(f"{result.kind} {result.number}: {result.outcome}: {result.message[:600]}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
