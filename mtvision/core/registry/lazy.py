"""Packages that import what they re-export when somebody asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from mtvision.core.registry.sources import exported_names


def lazy_exports(package: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose imports stand below `if TYPE_CHECKING`.

    A package's `__init__.py` says `__getattr__ = lazy_exports(__name__)`. A name must not be that of a module
    in the package: importing the module would bind the name to it.
    """

    def load(name: str) -> Any:
        definition = exported_names(package).get(name)
        if definition is None:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(import_module(definition.module), definition.name)
        setattr(sys.modules[package], name, value)
        return value

    return load
