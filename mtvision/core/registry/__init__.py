"""Name -> class tables.

A table exists where a config or a task chooses among several entries and outsiders may add one. A table reads
names and signatures of the classes below its locations from their source files. A module is imported when its
class is asked for. So a misspelt name or argument is reported before torch is imported, and choosing one
backbone does not import the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from mtvision.core.registry.sources import Definition
from mtvision.core.registry.table import Registry
from mtvision.core.values import Entry

PIPELINE = (
    Annotated[Any, Entry("PRESETS", key="preset", alone=True)]
    | Sequence[Annotated[Any, Entry("TRANSFORMS", made=True)]]
)
"""The transforms of a data set: a preset, or a list."""

BACKBONES = Registry("backbone", "BACKBONES", ["mtvision.models.backbones"])
ADAPTERS = Registry("adapter", "ADAPTERS", ["mtvision.models.adapters", "mtvision.models.branching"])
DECODERS = Registry(
    "decoder", "DECODERS", ["mtvision.models.decoders"], supplied=("channels", "strides", "tasks")
)
HEADS = Registry("head", "HEADS", ["mtvision.models.heads"], supplied=("in_channels", "task"))
LOSSES = Registry("loss", "LOSSES", ["mtvision.losses"])
METRICS = Registry("metric", "METRICS", ["mtvision.metrics"])
BALANCERS = Registry("balancer", "BALANCERS", ["mtvision.balance"], supplied=("tasks", "default_weights"))
STEPS = Registry("step", "STEPS", ["mtvision.steps"])
DATASETS = Registry(
    "dataset",
    "DATASETS",
    ["mtvision.data"],
    supplied=("protocol", "seed"),
    shared={"transforms": PIPELINE},
)
PREPARATIONS = Registry("preparation of data", "PREPARATIONS", ["mtvision.data.prepare"])
TRANSFORMS = Registry("transform", "TRANSFORMS", ["mtvision.data.transforms"])
PRESETS = Registry(
    "transforms preset", "PRESETS", ["mtvision.data.transforms.presets"], supplied=("protocol", "_")
)
OPTIMIZERS = Registry(
    "optimizer",
    supplied=("params",),
    foreign={
        "AdamW": Definition("torch.optim.adamw", "AdamW"),
        "Adam": Definition("torch.optim.adam", "Adam"),
        "SGD": Definition("torch.optim.sgd", "SGD"),
    },
)
SCHEDULES = Registry(
    "schedule", "PARAM_SCHEDULERS", ["mmengine.optim.scheduler"], supplied=("optimizer", "param_name")
)
SEARCHERS = Registry("searcher", "SEARCHERS", ["mtvision.search"])
MERGERS = Registry("merger", "MERGERS", ["mtvision.merge"], supplied=("base", "parents", "problem"))

PROTOCOLS = Registry("protocol", filled_by="mtvision.protocols")
TASKS = Registry("task", "TASKS", ["mtvision.protocols.tasks"])
ACTIVATIONS = Registry("activation", "ACTIVATIONS", ["mtvision.core.prediction", "mtvision.core.instances"])
COLOURS = Registry("colours", "COLOURS", ["mtvision.visualize.colours"])
LEGENDS = Registry("legend of colours", "LEGENDS", ["mtvision.visualize.legends"])
DERIVATIONS = Registry("label derivation", "DERIVATIONS", ["mtvision.data.derive"])


def tables() -> dict[str, Registry]:
    """{what the code calls a table, e.g. `DECODERS`: the table} of all of them."""
    return {name: item for name, item in globals().items() if isinstance(item, Registry)}


def replaced_entries() -> list[dict[str, str]]:
    """Shipped entries of any table that an outsider replaced in this process: `table`, `name`, `by`."""
    return [
        {"table": table.name, "name": name, "by": kind}
        for table in tables().values()
        for name, kind in sorted(table.replaced().items())
    ]


__all__ = [
    "ACTIVATIONS",
    "ADAPTERS",
    "BACKBONES",
    "BALANCERS",
    "COLOURS",
    "DATASETS",
    "DECODERS",
    "DERIVATIONS",
    "HEADS",
    "LEGENDS",
    "LOSSES",
    "MERGERS",
    "METRICS",
    "OPTIMIZERS",
    "PREPARATIONS",
    "PRESETS",
    "PROTOCOLS",
    "SCHEDULES",
    "SEARCHERS",
    "STEPS",
    "TASKS",
    "TRANSFORMS",
    "Registry",
    "replaced_entries",
    "tables",
]
