"""Mutations of configs, and an oracle that says by hand-written rules whether one is a mistake."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Plain = dict[str, Any]

VALUES = (
    *(True, False, None, -1, 0, 1, 2, 64, 2.5, -0.5, 0.5, 1.0, 1e-4, 10**30, -(10**30)),
    *(math.nan, math.inf, -math.inf, "", "many", "3", [], [1], [0.5, 0.5], ["a"], {}, {"a": 1}),
)
"""What stands in a config by mistake, and some of what may stand there."""


def whole(low: int, high: int = 2**63 - 1, *, none: bool = False) -> Callable[[Any], bool]:
    """Integers; Booleans are none."""
    return lambda value: (none and value is None) or (type(value) is int and low <= value <= high)


def number(low: float, high: float = math.inf, *, above: bool = False, none: bool = False):
    """Finite numbers, integers too; with `above` without the lowest."""

    def right(value: Any) -> bool:
        if type(value) not in (int, float) or not math.isfinite(value):
            return none and value is None
        return (value > low if above else value >= low) and value <= high

    return right


def one_of(*choices: Any) -> Callable[[Any], bool]:
    """Some values; 1 is not True."""
    return lambda value: any(value == item and type(value) is type(item) for item in choices)


def text(*, none: bool = False) -> Callable[[Any], bool]:
    """Texts with at least one character."""
    return lambda value: (none and value is None) or (isinstance(value, str) and value != "")


TRUE_OR_FALSE = one_of(True, False)
RULES: dict[str, Callable[[Any], bool]] = {
    "name": text(none=True),
    "provenance": one_of("ours", "released", "smoke"),
    "seed": whole(0, 2**32 - 1),
    "*_data.batch_size": whole(1),
    "*_data.num_workers": whole(0, 256),
    "*_data.dataset.length": whole(1, none=True),
    "*_data.dataset.scene_seed": whole(0),
    "*_data.dataset.instances": TRUE_OR_FALSE,
    "*_data.dataset.sky_fix": TRUE_OR_FALSE,
    "*_data.dataset.partial": TRUE_OR_FALSE,
    "*_data.dataset.transforms.*.p": number(0, 1),
    "*_data.dataset.transforms.*.low": number(0, above=True),
    "training.iterations": whole(1),
    "training.checkpoint_interval": whole(0),
    "training.keep_checkpoints": whole(1),
    "training.log_interval": whole(1),
    "training.micro_batches": whole(1, 2),
    "training.clip_grad": number(0, above=True, none=True),
    "training.precision": one_of("fp32", "bf16", "fp16"),
    "training.ema": number(0, 1, none=True),
    "training.loss_means": one_of("rank", "global", None),
    "training.non_finite": one_of("stop", "skip"),
    "training.sync_bn": TRUE_OR_FALSE,
    "training.channels_last": TRUE_OR_FALSE,
    "training.threads": whole(1, 1024, none=True),
    "training.load_from": text(none=True),
    "evaluation.precision": one_of("fp32", "bf16", "fp16"),
    "evaluation.workers": whole(0, 256),
    "evaluation.constant_predictor": whole(0),
    "evaluation.pictures": whole(0),
    "evaluation.metric_options.edge.thresholds": whole(1),
    "logging.tensorboard": TRUE_OR_FALSE,
    "logging.wandb": TRUE_OR_FALSE,
    "logging.project": text(),
    "optimizer.lr": number(0),
    "optimizer.weight_decay": number(0),
    "optimizer.backbone_lr": number(0),
    "optimizer.no_decay": TRUE_OR_FALSE,
    "optimizer.layer_decay": number(0, above=True, none=True),
    "optimizer.architecture_lr": number(0, none=True),
    "schedule.*.power": number(-math.inf),
    "schedule.*.begin": whole(-(2**63)),
    "model.decoder.width": whole(1),
    "model.head.hidden": whole(1, none=True),
    "model.adapters.0.cost_weight": number(0),
    "step.warmup": whole(0),
    "step.held_out": number(0, 1),
    "search.held_out": number(0, 1),
    "search.population": whole(1),
    "search.images": whole(1),
    "protocol.loss_weights.edge": number(0),
    "protocol.tasks.edge.thresholds": whole(1),
    "balancer.weights.*": number(0),
}
"""{pattern of keys: whether a value is right}; written from the documentation, not from the code."""

NAMES = (
    *("protocol", "model.*.type", "*_data.dataset.type", "*.transforms.*.type", "*.transforms.preset"),
    *("*_data.dataset.transforms", "balancer.type", "step.type", "search.type", "optimizer.type"),
    *("schedule.*.type", "model.backbone.name", "evaluation.baseline", "evaluation.select"),
    *("training.precision", "*_data.dataset.labels.*.derive"),
)
"""Keys whose text is a name in a table."""

FREE = ("model.backbone.*", "*.labels.*", "*_options.*", "*weights*", "*.lr_factors.*", "*.role_overrides.*")
"""Keys that a class passes on, or that somebody chooses; a misspelt one is told later, or is right."""

REQUIRED = (
    *("protocol", "model", "train_data", "optimizer", "model.backbone", "model.decoder", "*_data.dataset"),
    *("model.*.type", "*_data.dataset.type", "balancer.type", "step.type", "search.type", "schedule.*.type"),
    *("*.transforms.*.type", "model.backbone.name", "optimizer.lr", "*.transforms.preset"),
    *("protocol.id", "protocol.tasks", "protocol.tasks.semseg.class_names", "*_data.dataset.root"),
    *("*_data.dataset.labels", "model.adapters.*.iterations"),
)

WITH_A_SPLIT = ("SyntheticScenes", "FolderDataset", "JointDataset")
"""Data sets whose `split` has a default."""

OF_TASKS = (
    *("training.loss_options", "evaluation.metric_options", "evaluation.during_training", "model.heads"),
    *("balancer.weights", "model.decoder.task_widths", "protocol.loss_weights", "evaluation.baseline"),
)
SECTIONS = ("model", "train_data", "test_data", "optimizer", "training", "evaluation", "logging", "schedule")


@dataclass(frozen=True)
class Mutation:
    """A changed config.

    Args:
        kind: of the change.
        config: the whole of it.
        keys: of which a message must have one; empty if the config is right.
        what: the change in words.
    """

    kind: str
    config: Plain
    keys: tuple[str, ...]
    what: str


def places(node: Any, key: str = "") -> Iterator[tuple[str, Any, Any, Any]]:
    """(dotted key, container, name in it, value) of everything in a config."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in pairs:
        inside = f"{key}.{name}" if key else str(name)
        yield inside, node, name, value
        yield from places(value, inside)


def fits(key: str, patterns: Any) -> bool:
    """Whether a key is one of some patterns."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


class Mutator:
    """Draws mutations of some configs.

    Args:
        configs: {name: plain data}.
        seed: of the draws.
    """

    def __init__(self, configs: dict[str, Plain], seed: int) -> None:
        self.configs = configs
        self.random = random.Random(seed)

    def draw(self, kind: str) -> Mutation:
        """One mutation of a kind: the name of a method below."""
        while True:
            name = self.random.choice(sorted(self.configs))
            config = copy.deepcopy(self.configs[name])
            found = getattr(self, kind)(config)
            if found is not None:
                keys, what = found
                return Mutation(kind, config, keys, f"{name}: {what}")

    def pick(self, config: Plain, patterns: Any) -> tuple[str, Any, Any, Any] | None:
        """A random place whose key fits."""
        found = [place for place in places(config) if fits(place[0], patterns)]
        return self.random.choice(found) if found else None

    def value(self, config: Plain):
        """Any value in the place of one with a known rule."""
        place = self.pick(config, RULES)
        if place is None:
            return None
        key, node, name, _ = place
        node[name] = self.random.choice(VALUES)
        right = all(rule(node[name]) for pattern, rule in RULES.items() if fnmatchcase(key, pattern))
        return () if right else (key,), f"{key}={node[name]!r}"

    def misspelt_key(self, config: Plain):
        """Two letters of a key change places."""
        found = [place for place in places(config) if isinstance(place[2], str) and len(place[2]) > 3]
        key, node, name, value = self.random.choice(found)
        if fits(key, FREE) or (isinstance(value, dict) and "class_names" in value):
            return None
        at = self.random.randrange(1, len(name) - 2)
        wrong = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
        if wrong in node:
            return None
        node[wrong] = node.pop(name)
        return (f"{key[: -len(name)]}{wrong}",), f"{key} -> {wrong}"

    def removed_key(self, config: Plain):
        """A key is left out; one that is not required has a default."""
        found = [place for place in places(config) if isinstance(place[1], dict) and not fits(place[0], FREE)]
        key, node, name, value = self.random.choice(found)
        followers = {"model.head": "model.heads", "protocol.tasks.edge": "protocol.loss_weights.edge"}
        if not config["test_data"]:
            followers["val_data"] = "test_data"
        elif config["training"]["val_interval"]:
            followers["val_data"] = "training.val_interval"
        if key.startswith("evaluation.baseline."):
            followers[key] = "evaluation.baseline"
        if key in ("tasks", "test_data") or (len(key.split(".")) == 1 and value is None):
            return None
        del node[name]
        if len(key.split(".")) == 1:
            node[name] = None  # as `load_config` completes it
            if name in (
                "balancer",
                "step",
                "training",
                "evaluation",
                "logging",
                "phases",
                "plugins",
                "seed",
                "provenance",
            ):
                return None
        if key in followers:
            return (followers[key],), f"without {key}"
        needed = fits(key, REQUIRED) or (name == "split" and node.get("type") not in WITH_A_SPLIT)
        return ((key,) if needed else ()), f"without {key}"

    def unknown_name(self, config: Plain):
        """A name that no table has."""
        place = self.pick(config, NAMES)
        if place is None or not isinstance(place[3], str) or "." in place[3]:
            return None
        key, node, name, value = place
        node[name] = value[:-1] + "qx"
        return (key,), f"{key}={node[name]!r}"

    def absent_task(self, config: Plain):
        """An entry of a task that does not exist."""
        place = self.pick(config, OF_TASKS)
        if place is None or not isinstance(place[3], dict):
            return None
        key, _, _, entries = place
        entries["dpeth"] = copy.deepcopy(next(iter(entries.values()), {}))
        return (f"{key}.dpeth",), f"{key}.dpeth"

    def swapped_sections(self, config: Plain):
        """Two sections stand in each other's place."""
        one, two = self.random.sample([name for name in SECTIONS if config.get(name)], 2)
        if {one, two} == {"train_data", "test_data"}:
            return None
        config[one], config[two] = config[two], config[one]
        return (one, two), f"{one} <-> {two}"

    def wrong_section(self, config: Plain):
        """A whole section, or a component, is of another kind."""
        place = self.pick(
            config, (*SECTIONS, "balancer", "step", "model.*", "*_data.dataset", "plugins", "tasks")
        )
        if place is None or not isinstance(place[3], dict | list) or place[0].count(".") > 1:
            return None
        key, node, name, value = place
        wrong = [5, True, "x", "", math.nan]
        node[name] = self.random.choice([*wrong, [value]] if isinstance(value, dict) else [5, True, {"a": 1}])
        return (key,), f"{key}={type(node[name]).__name__}"

    def several(self, config: Plain):
        """Mistakes in two or three places, all of which must be told."""
        keys: list[str] = []
        for kind in self.random.sample(["value", "misspelt_key", "unknown_name", "absent_task"], 3):
            before = copy.deepcopy(config)
            found = getattr(self, kind)(config)
            sections = {key.split(".")[0] for key in keys} | {"protocol"}  # it decides about tasks
            if found is None or any(key.split(".")[0] in sections or "." not in key for key in found[0]):
                config.clear()
                config.update(before)
            else:
                keys += found[0]
        return (tuple(keys), " and ".join(keys)) if len(keys) > 1 else None
