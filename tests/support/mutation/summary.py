"""The table of a run and the list of survivors, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from mutation.session import Equivalent, Result, split

_HEAD = (
    "package",
    "sampled",
    "killed by fast tests",
    "killed by slow tests only",
    "survived",
    "unreached",
    "equivalent",
)


def count(results: Sequence[Result], equivalents: Sequence[Equivalent]) -> dict[str, list[int]]:
    """{package: sampled, killed by fast tests, by slow only, survived, unreached, equivalent}, then `all`."""
    counting, same = split(results, equivalents)
    table = {name: [0] * 6 for name in [*sorted({one.package for one in results}), "all"]}
    columns = {("killed", False): 1, ("killed", True): 2, ("survived", False): 3, ("unreached", False): 4}
    numbered = [(one, columns[one.outcome, one.slow]) for one in counting] + [(one, 5) for one, _ in same]
    for one, column in numbered:
        for row in (table[one.package], table["all"]):
            row[0] += 1
            row[column] += 1
    return table


def markdown(results: Sequence[Result], equivalents: Sequence[Equivalent]) -> str:
    """Table, shares and survivors."""
    counting, _ = split(results, equivalents)
    table = count(results, equivalents)
    lines = [" | ".join(["", *_HEAD, ""]).strip(), "|" + "---|" + "---:|" * (len(_HEAD) - 1)]
    lines += ["| " + " | ".join([name, *map(str, row)]) + " |" for name, row in table.items()]
    sampled, fast, slow, survived, unreached, equivalent = table["all"]
    different = max(sampled - equivalent, 1)
    lines += [
        "",
        f"Of {different} changes that make a difference, {fast + slow} are killed "
        f"({(fast + slow) / different:.1%}), {fast} of them by fast tests ({fast / different:.1%}); "
        f"{survived + unreached} are not ({(survived + unreached) / different:.1%}).",
    ]
    for one in sorted(counting, key=lambda one: (one.module, one.line)):
        if one.outcome != "killed":
            lines += ["", f"{one.module}:{one.line} ({one.outcome}, {one.id})", "```diff", one.diff(), "```"]
    return "\n".join(lines) + "\n"
