"""What a resumed run does differently from the run that wrote its checkpoint, and what is the same run."""

from __future__ import annotations

import ast
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mtvision.core.naming import ReportedError
from mtvision.recipe.sections import LOADER_DEFAULTS, TOP_LEVEL, OptimizerSettings, section_defaults
from mtvision.report.provenance import NO_PATH, without_paths

_HARMLESS = (
    *("name", "provenance", "plugins*", "logging.*", "evaluation.*", "val_data*", "test_data*", "search*"),
    *("training.val_interval", "training.checkpoint_interval", "training.keep_checkpoints"),
    *("training.keep_every", "training.async_checkpoints"),
    *(
        "training.first_look*",
        "training.log_interval",
        "training.diagnostics_interval",
        "training.load_from",
        "training.load_partly",
        "train_data.num_workers",
    ),
    *("model.backbone.pretrained", "training.time_limit_minutes", "training.stuck_minutes"),
    "training.shard",
)
"""Keys that change nothing of what the network learns from here on."""
_IMPOSSIBLE = {
    "optimizer.type": "its state is of another kind",
    "balancer.type": "its state is of another kind",
    "step.type": "its state is of another kind",
    "tasks*": "the network has other heads",
    "training.init_from_data": "losses and outputs had another scale from the first step on",
    "training.freeze*": "the optimizer has the state of other parameters",
}
"""Keys whose change a run cannot continue with, and why."""
_RATES = ("optimizer.*", "schedule*", "training.iterations")
_SHOWN = 60
_NAMED = 6

ABSENT = "(absent)"


class ResumeError(ReportedError, ValueError):
    """A checkpoint cannot be continued with this config."""


@dataclass(frozen=True)
class Difference:
    """One value that differs.

    Args:
        key: dotted path in the config.
        before: as the checkpoint was trained.
        now: as the run continues.
    """

    key: str
    before: Any
    now: Any

    @property
    def harmless(self) -> bool:
        """Whether the network learns the same with both."""
        return _matches(self.key, _HARMLESS)

    @property
    def of_rates(self) -> bool:
        """Whether it changes the optimizer's options or their schedule."""
        return _matches(self.key, _RATES)

    @property
    def reason(self) -> str | None:
        """Why a run cannot continue with it; None if it can."""
        return next((why for glob, why in _IMPOSSIBLE.items() if fnmatchcase(self.key, glob)), None)

    def __str__(self) -> str:
        return f"{self.key}: {_short(self.before)} → {_short(self.now)}"


def plain_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config's values as JSON holds them, for a checkpoint's `meta`."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(config), default=str))
    return plain


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Every value in which two configs differ, in the order of keys.

    Args:
        before: `plain_options` of a checkpoint. Keys that its version of the suite did not have count as
            their defaults.
        now: `plain_options` of the run.
    """
    old, new = dict(_flat(_completed(before))), dict(_flat(_completed(now)))
    keys = [*new, *(key for key in old if key not in new)]
    found = [Difference(key, old.get(key, ABSENT), new.get(key, ABSENT)) for key in keys]
    inner = tuple(keys)
    return sorted(
        (
            item
            for item in found
            # None that became a section is said by the section's keys
            if item.before != item.now and not any(key.startswith(f"{item.key}.") for key in inner)
        ),
        key=lambda item: item.key,
    )


def refuse_impossible(found: Sequence[Difference], what: str) -> None:
    """Stop where a run cannot continue with a difference.

    Args:
        found: of checkpoint and config.
        what: the checkpoint.

    Raises:
        ResumeError: one line for each of them.
    """
    wrong = [item for item in found if item.reason]
    if wrong:
        lines = "".join(f"\n  {item} ({item.reason})" for item in wrong)
        raise ResumeError(
            f"{what} cannot be continued with this config:{lines}\n"
            "Resume with its own config, or start anew with training.load_from (and training.load_partly)."
        )


def in_words(found: Sequence[Difference], what: str) -> str:
    """The differences, those that change what is learnt first, one a line; empty without any."""
    serious = [item for item in found if not item.harmless]
    lines = []
    if serious:
        lines.append(f"{what} was trained with other settings; from here on those of this config hold:")
        lines += [f"  {item}" for item in serious]
    if len(serious) < len(found):
        lines.append(f"{what} differs in what does not change the training:")
        lines += [f"  {item}" for item in found if item.harmless]
    return "\n".join(lines)


def as_options(found: Sequence[Difference]) -> str:
    """A sentence that names the keys, and one with the options that give them their earlier values.

    >>> as_options([Difference("seed", 1, 0), Difference("model.head.type", "ConvHead", ABSENT)])
    'The config differs from that of the training in seed, model.head.type. As trained: --cfg-options seed=1.'
    """
    if not found:
        return "The config of the training is written in another way."
    names = [item.key for item in found]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    keys = f"The config differs from that of the training in {', '.join(names[:_NAMED])}{more}."
    # A key that this config lacks, or had not then, can only be changed in the file
    options = [
        shlex.quote(f"{item.key}={item.before}")
        for item in found
        if ABSENT not in (item.before, item.now) and NO_PATH not in str(item.before)
    ]
    return f"{keys} As trained: --cfg-options {' '.join(options)}." if options else keys


def _matches(key: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(key, glob) for glob in globs)


def _completed(options: Mapping[str, Any]) -> dict[str, Any]:
    """With the defaults of the keys that an older version did not have."""
    whole = {**plain_options(TOP_LEVEL), **options}
    for name, defaults in section_defaults().items():
        whole[name] = {**plain_options(defaults), **(whole.get(name) or {})}
    if isinstance(whole.get("optimizer"), Mapping):
        whole["optimizer"] = {"type": OptimizerSettings(lr=0.0).type, **whole["optimizer"]}
    if whole.get("train_data") is not None:
        whole["train_data"] = {**LOADER_DEFAULTS, **whole["train_data"]}
    return whole


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is no dict; lists of dicts are entered too."""
    if isinstance(value, Mapping) and (value or not key):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{key}.{index}")
    else:
        yield key, value


def _short(value: Any) -> str:
    text = value if value == ABSENT else repr(value) if not isinstance(value, str) else value
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def fingerprint(text: str) -> str:
    """SHA-256 of a completed config, without the keys that have their default and without absolute paths.

    A newer version of this package adds keys to completed configs; what was trained before it stays finished.

    Args:
        text: one `key = value` per line, as `RunConfig.text` gives it.
    """
    defaults = section_defaults()
    kept = {}
    for node in ast.parse(without_paths(text)).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name, value = node.targets[0].id, node.value
        if name in defaults and isinstance(value, ast.Call):
            value.keywords = [
                item
                for item in value.keywords
                if not _is_default(item.value, defaults[name].get(item.arg or "", ...))
            ]
        if not _is_default(value, TOP_LEVEL.get(name, ...)):
            kept[name] = ast.unparse(value)
    return hashlib.sha256(repr(sorted(kept.items())).encode()).hexdigest()


def _is_default(node: ast.expr, default: Any) -> bool:
    try:
        return bool(ast.literal_eval(node) == default)
    except ValueError:  # `dict(…)` with or without entries
        return ast.unparse(node) == "dict()" and default == {}
