"""How many public names have an example in their docstring. Public is what the reference pages document."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

DOCUMENTED = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def public_names(root: Path) -> list[str]:
    """Dotted names that the pages of docs/reference document."""
    pages = sorted((root / "docs" / "reference").glob("*.md"))
    return [name for page in pages for name in DOCUMENTED.findall(page.read_text(encoding="utf-8"))]


def without_example(names: list[str]) -> list[str]:
    """Those whose docstring has no `>>>`.

    Raises:
        ImportError, AttributeError: there is no such name.
    """
    return [name for name in names if ">>>" not in (_value(name).__doc__ or "")]


def _value(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
