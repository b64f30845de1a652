"""Prepare the loaders' folders from the released archives; see `tools/prepare_dataset.py`."""

from collections.abc import Callable

from mtvision.data.prepare.cityscapes import prepare_cityscapes
from mtvision.data.prepare.nyudv2 import prepare_nyudv2
from mtvision.data.prepare.pascal_context import prepare_pascal_context
from mtvision.data.prepare.work import Outcome

PREPARATIONS: dict[str, Callable[..., Outcome]] = {
    "nyudv2": prepare_nyudv2,
    "pascal_context": prepare_pascal_context,
    "cityscapes": prepare_cityscapes,
}

__all__ = ["PREPARATIONS", "Outcome", "prepare_cityscapes", "prepare_nyudv2", "prepare_pascal_context"]
