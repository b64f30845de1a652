"""Fixtures of the data tests: the builders of miniature data sets."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def miniature() -> ModuleType:
    """The module of builders beside this file."""
    path = Path(__file__).with_name("miniature.py")
    spec = importlib.util.spec_from_file_location("mtvision_test_miniature", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
