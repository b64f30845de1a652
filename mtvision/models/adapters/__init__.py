"""Changes to existing networks: of the backbone before a decoder is built on it, or of everything after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.adapters.adapter import Adapter
    from mtvision.models.adapters.class_token import DropClassToken
    from mtvision.models.adapters.mtan import MTAN
    from mtvision.models.adapters.slimmable import Slimmable
    from mtvision.models.adapters.streams import NDDR, CrossStitch
    from mtvision.models.adapters.task_prompts import TaskPrompts
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["MTAN", "NDDR", "Adapter", "CrossStitch", "DropClassToken", "Slimmable", "TaskPrompts"]
