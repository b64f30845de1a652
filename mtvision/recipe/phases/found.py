"""What one phase finds and a later one is built from: `tree=dict(of_phase="search")`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mtvision.recipe.config import RunConfig
from mtvision.recipe.settings import to_plain_data

OF_PHASE = "of_phase"
"""The only key of a value that stands for what a phase finds."""


def phases_asked(value: Any) -> set[str]:
    """Names of the phases whose result a value asks for.

    >>> phases_asked({"adapters": [{"type": "Branched", "tree": {"of_phase": "search"}}]})
    {'search'}
    """
    names: set[str] = set()
    _replaced(value, lambda name: names.add(name))
    return names


def filled(config: RunConfig, found: Mapping[str, Any]) -> RunConfig:
    """The config with results in the places that ask for them.

    Args:
        config: of a phase, or of the whole run.
        found: {phase: what it found}.

    Raises:
        ValueError: no phase of a name has found anything.
    """
    model = to_plain_data(config["model"])
    asked = phases_asked(model)
    if not asked:
        return config
    lacking = sorted(asked - found.keys())
    if lacking:
        raise ValueError(
            f"model asks for the result of phase '{lacking[0]}', and no such phase has run. Name a phase "
            "that comes before, see docs/phases.md."
        )
    return config.with_options({"model": _replaced(model, found.__getitem__)})


def without_found(config: RunConfig) -> RunConfig:
    """The config without the adapters that need a result, to build it before there is one."""
    model = to_plain_data(config["model"])
    if not phases_asked(model):
        return config
    kept = [item for item in model.get("adapters") or () if not phases_asked(item)]
    return config.with_options({"model": {**model, "adapters": kept}})


def _replaced(value: Any, result: Callable[[str], Any]) -> Any:
    """A copy in which every `{of_phase: NAME}` is `result(NAME)`."""
    if isinstance(value, Mapping):
        if set(value) == {OF_PHASE}:
            return result(str(value[OF_PHASE]))
        return {key: _replaced(item, result) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, result) for item in value]
    return value
