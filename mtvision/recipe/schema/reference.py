"""The reference page of configs: every key and every argument, made from sections and signatures."""

from __future__ import annotations

from collections.abc import Iterable

from mtvision.core.registry import tables
from mtvision.core.registry.described import described
from mtvision.core.registry.entries import definition_at
from mtvision.core.registry.options import Option, options_at, options_of_section
from mtvision.core.values import describe
from mtvision.models.check import ModelSettings
from mtvision.recipe.sections import (
    OWN_PROTOCOL,
    DataSettings,
    EvaluationSettings,
    LoggingSettings,
    OptimizerSettings,
    PhaseSettings,
    SearchSettings,
    TopLevel,
    TrainingSettings,
)

SECTIONS = {
    "The whole config": TopLevel,
    "model": ModelSettings,
    "train_data, val_data, test_data": DataSettings,
    "optimizer": OptimizerSettings,
    "search": SearchSettings,
    "training": TrainingSettings,
    "phases, each": PhaseSettings,
    "evaluation": EvaluationSettings,
    "logging": LoggingSettings,
}
COMPONENTS = (
    *("BACKBONES", "ADAPTERS", "DECODERS", "HEADS", "DATASETS", "PRESETS", "TRANSFORMS", "BALANCERS"),
    *("STEPS", "SEARCHERS", "LOSSES", "METRICS", "TASKS"),
)
HEADER = """\
# Every key of a config

`mtvision configs reference --out docs/config_reference.md` writes this page, from the code that
checks configs. A test compares it. [Configs](configs.md) explains how a config is made. Arguments that the
suite supplies are left out. So are those of torch's optimizers and mmengine's schedulers, which are checked
all the same.
"""


def reference_page() -> str:
    """The page as Markdown, of what comes with the suite."""
    parts = [HEADER]
    for title, section in SECTIONS.items():
        parts.append(f"## {title}\n\n{_rows(options_of_section(section).values())}")
    parts.append(f"## protocol, as a dict\n\n{_rows(options_at(definition_at(OWN_PROTOCOL)).values())}")
    known = tables()
    for variable in COMPONENTS:
        table = known[variable]
        parts.append(f"## Entries: {table.name}\n")
        for name in sorted(name for name in table if table.shipped(name)):
            options, entry = table.options(name), described(table, name)
            arguments = _rows(options.values()) if options else "No arguments.\n"
            parts.append(f"### {name}\n\n{entry.summary or 'Not documented'}.\n\n{arguments}")
    return "\n".join(parts)


def _rows(options: Iterable[Option]) -> str:
    lines = ["| key | what it may be | default | meaning |", "|---|---|---|---|"]
    for option in options:
        default = "required" if option.required else f"`{option.default}`"
        cells = (f"`{option.name}`", describe(option.kind), default, option.text)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"
