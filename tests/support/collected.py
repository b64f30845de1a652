"""All tests that were collected, before `-m` and `-k` leave some out."""

from __future__ import annotations

import pytest

COLLECTED = pytest.StashKey[list[pytest.Item]]()
"""In `config.stash`."""


class Keeper:
    """A plugin that keeps them: guards of the pages that tests make ask for all markers."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep a copy of the list."""
        config.stash[COLLECTED] = list(items)
