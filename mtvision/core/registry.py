"""Name -> class tables: the only module outside `engine` that knows mmengine.

A table exists only where a config chooses among two or more classes and outsiders may add one.
Importing the package that fills a table happens on first use, so a name in a config is enough.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import Registry as _Registry

from mtvision.core.naming import UnknownNameError


class Registry(_Registry):
    """mmengine registry whose errors name the config entry at fault."""

    def build(self, cfg: Mapping[str, Any], **context: Any) -> Any:
        """Build `cfg["type"](**rest, **context)`; `type` is a registered name or the class itself.

        Args:
            cfg: one config entry. It is not modified.
            context: arguments the suite supplies (channels, tasks, ...), never the config.

        Raises:
            TypeError: `cfg` is not a mapping with a `type`, or a required argument is missing.
            UnknownNameError: the name is not registered, or the class has no such argument.
        """
        if not isinstance(cfg, Mapping) or "type" not in cfg:
            raise TypeError(f"{self.name}: expected a dict with the key 'type', got {cfg!r}.")
        factory = cfg["type"]
        if isinstance(factory, str):
            found = self.get(factory)
            if found is None:
                raise UnknownNameError(self.name, factory, self.module_dict)
            factory = found
        given = {key: value for key, value in cfg.items() if key != "type"}
        parameters = inspect.signature(factory).parameters
        accepts_any = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
        for argument in given:
            if argument not in parameters and not accepts_any:
                raise UnknownNameError(f"{factory.__name__} argument", argument, parameters)
            if argument in context:
                raise TypeError(
                    f"{factory.__name__}: '{argument}' is supplied by the suite; remove it from the config."
                )
        required = [
            name
            for name, item in parameters.items()
            if item.default is item.empty and item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
        ]
        missing = [name for name in required if name not in given and name not in context]
        if missing:
            raise TypeError(
                f"{factory.__name__}: missing argument {', '.join(missing)} (given: {sorted(given)})."
            )
        return factory(**given, **context)


def _table(name: str, *locations: str) -> Registry:
    return Registry(name, scope="mtvision", locations=list(locations))


BACKBONES = _table("backbone", "mtvision.models.backbones")
ADAPTERS = _table("adapter", "mtvision.models.adapters", "mtvision.models.branching")
DECODERS = _table("decoder", "mtvision.models.decoders")
HEADS = _table("head", "mtvision.models.heads")
LOSSES = _table("loss", "mtvision.losses")
BALANCERS = _table("balancer", "mtvision.balance")
STEPS = _table("step", "mtvision.steps")
DATASETS = _table("dataset", "mtvision.data")
SEARCHERS = _table("searcher", "mtvision.search")
MERGERS = _table("merger", "mtvision.merge")
