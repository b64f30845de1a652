"""The matrix of methods and properties: every cell is the outcome of tests that say what they try.

Tests say it in a marker, `conformance(method, *properties)`. `{name}` in the method stands for a parameter of
the test, `{id}` for the whole id of its parameters. What is before a slash counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtvision.core.registry import ADAPTERS

PROPERTIES = {
    "formulas": "gives what an independent derivation from the formulas or the released code gives",
    "layout": "weights have the names and shapes of the authors' checkpoints, there and back",
    "counts": "parameters, or operations, are those that are published or follow by hand",
    "2 ranks = 1": "two processes train as one does",
    "resume": "a stopped and resumed run ends as one that was not stopped",
    "subset = whole": "some of the tasks alone give what they give among all",
    "export": "the exported graph gives the same",
    "bf16": "bfloat16 differs by rounding alone",
    "slims": "runs at smaller widths, and the slimmed network is the same as the wide one at that width",
    "branches": "trains on a branched encoder and in the search for one",
    "merges": "trained updates merge into the weights without a change",
    "partial labels": "tasks without labels in a batch are left out",
}
"""{column: what it means}."""

BATTERY = {
    "subset_equals_whole": "subset = whole",
    "exportable": "export",
    "bfloat16_is_close": "bf16",
    "absent_tasks_count_for_nothing": "partial labels",
    "absent_tasks_are_left_out": "partial labels",
    "halves_average_to_the_whole": "2 ranks = 1",
    "processes_equal_one": "2 ranks = 1",
}
"""{property of a battery: column}."""
KINDS = ("decoder", "adapter", "balancer", "step")
"""Batteries whose classes are methods."""

ADAPTED = "Adapters and structures"
GROUPS = {
    "Decoders": {
        "parallel": ("ParallelDecoder", "parallel", "densenet", "plain", "bf16", "average", "workers"),
        "multi-decoder": (
            "ConcatDecoder",
            "multi_decoder",
            "concat",
            "deeplab",
            "resnet",
            "resnet18",
            "hrnet",
        ),
        "PAD-Net": ("PADNetDecoder", "pad_net"),
        "MTI-Net": ("MTINetDecoder", "mti_net"),
        "InvPT": ("InvPTDecoder", "invpt"),
        "TaskPrompter": ("TaskPrompterDecoder", "taskprompter", "taskprompter_swin", "TaskPrompts"),
        "TaskExpert": ("TaskExpertDecoder", "taskexpert"),
        "MLoRE": ("MLoREDecoder", "mlore"),
        "Medusa": ("MedusaDecoder", "medusa"),
        "MTMamba": ("MTMambaDecoder", "mtmamba", "mtmamba plus=False"),
        "MTMamba++": ("MTMambaPlusDecoder", "mtmamba_plus", "mtmamba plus=True"),
    },
    ADAPTED: {
        "Cross-Stitch": ("CrossStitch", "cross_stitch"),
        "NDDR": ("NDDR", "nddr"),
        "MTAN": ("MTAN", "mtan"),
        "LoRA, MTLoRA": ("LowRank",),
        "DiTASK": ("DiTASK",),
        "Houlsby": ("Houlsby",),
        "C-Poly": ("PolySkills",),
        "shared hypernetwork": ("HyperLowRank",),
        "M³ViT": ("MixtureOfExperts",),
        "SubTuning": ("Subset",),
        "Efficient Computation Sharing": ("SparseDeltas",),
        "Deep Safe MTL": ("PublicPrivate",),
        "branched encoder": ("Branched", "tree"),
        "search for branches": ("BranchingSearch", "straight_through", "streams"),
        "slimmable": ("Slimmable", "slimmable", "SandwichStep"),
        "Pareto manifold": ("ParetoManifold",),
        "representation surgery": ("Surgery",),
    },
}
"""{part of the page: {method: its names in tests}}; other methods follow under their class's name."""
REST = "Balancers and steps"
TITLES = {"uncertainty": "Uncertainty", "upgrad": "UPGrad"}
"""{name in tests: class} of the rest."""
ENDINGS = ("_pascal", "_4", "_hrnet", "_resnet")
"""What names of one method add for its variants."""


def method_of(name: str) -> tuple[str, str]:
    """Part of the page and title of a method, from a name in a test.

    What follows `/` or a comma is left out. So is what follows `-`, or a known ending, if there is no such
    method, or if an adapter stands before it.
    """
    plain = name.split("/")[0].split(",")[0]
    shorter = [plain.removesuffix(end) for end in ENDINGS]
    for candidate in (plain, plain.split("-")[0], *shorter):
        for group, methods in GROUPS.items():
            for title, names in methods.items():
                if candidate in names:
                    return group, title
    if plain.split("-")[0] in ADAPTERS:
        return ADAPTED, plain.split("-")[0]
    return REST, TITLES.get(plain, plain)


def cells_of(method: str, properties: Sequence[str], params: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(part, method, property) of a marker on a test with these parameters.

    Raises:
        ValueError: a property is no column, or none is given.
    """
    wrong = [name for name in properties if name not in PROPERTIES]
    if wrong or not properties:
        raise ValueError(
            f"marker conformance: found the properties {list(properties)}, "
            f"expected some of {', '.join(PROPERTIES)}."
        )
    group, title = method_of(method.format_map(dict(params)))
    return [(group, title, name) for name in properties]


def cell(outcomes: Sequence[str] | None) -> str:
    """Text of a cell: how many tests passed, or how many of how many failed; empty without a test."""
    if outcomes is None:
        return ""
    failed, run = outcomes.count("failed"), len(outcomes) - outcomes.count("skipped")
    if failed:
        return f"**{failed} of {run} failed**"
    return str(run) if run else "not tried"


def matrix(outcomes: Mapping[tuple[str, str, str], Sequence[str]]) -> str:
    """The tables of the page."""
    parts = []
    for group in (*GROUPS, REST):
        titles = [*GROUPS.get(group, ())]
        titles += sorted({title for part, title, _ in outcomes if part == group} - set(titles))
        used = [name for name in PROPERTIES if any((group, title, name) in outcomes for title in titles)]
        if not used:
            continue
        lines = [f"| method | {' | '.join(used)} |", "|---|" + "--:|" * len(used)]
        for title in titles:
            cells = [cell(outcomes.get((group, title, name))) for name in used]
            lines.append(f"| {title} | {' | '.join(cells)} |")
        parts.append(f"\n## {group}\n\n" + "\n".join(lines) + "\n")
    return "".join(parts)


def filled(text: str) -> set[tuple[str, str, str]]:
    """(part, method, property) of the cells of a page that are not empty."""
    found, group, columns = set(), "", list[str]()
    for line in text.splitlines():
        if line.startswith("## "):
            group = line[3:]
        elif line.startswith("| method |"):
            columns = [part.strip() for part in line.strip("|").split("|")][1:]
        elif line.startswith("| ") and group in {*GROUPS, REST}:
            title, *cells = [part.strip() for part in line[1:-1].split("|")]
            found |= {(group, title, name) for name, text in zip(columns, cells, strict=True) if text}
    return found


HEAD = """\
# Which method has which property

Each cell is the number of tests that passed in the last run, or how many failed. `make conformance` makes
this page from the outcomes of the tests. An empty cell has no test; a test of "not tried" was not run.

| property | meaning |
|---|---|
"""


def page(outcomes: Mapping[tuple[str, str, str], Sequence[str]]) -> str:
    """The whole page."""
    return HEAD + "".join(f"| {name} | {text} |\n" for name, text in PROPERTIES.items()) + matrix(outcomes)
