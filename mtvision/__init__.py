"""mtvision: multi-task dense scene understanding, from config to reproduction table.

The names below are the public interface. Each is imported when it is first used.

>>> import mtvision
>>> model = mtvision.load("demo")
>>> list(model.tasks)
['semseg', 'depth', 'normals', 'edge', 'saliency']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtvision.api.model import Model, from_pretrained, load
    from mtvision.api.result import Result
    from mtvision.api.runs import build, evaluate, list_recipes, train
    from mtvision.api.scores import score
    from mtvision.core.task import Task
    from mtvision.procedures.own_data.init import init
    from mtvision.recipe.config import RunConfig, load_config
    from mtvision.report.record import Record
    from mtvision.share.hub import push_to_hub
else:

    def __getattr__(name: str) -> Any:
        from mtvision.core.registry.lazy import lazy_exports

        return lazy_exports(__name__)(name)


__version__ = "0.1.0"

__all__ = [
    "Model",
    "Record",
    "Result",
    "RunConfig",
    "Task",
    "__version__",
    "build",
    "evaluate",
    "from_pretrained",
    "init",
    "list_recipes",
    "load",
    "load_config",
    "push_to_hub",
    "score",
    "train",
]


def __dir__() -> list[str]:
    return sorted(__all__)
