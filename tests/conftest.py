"""Shared options and fixtures: device and precision, a fixed seed, and the folder of small real data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from collected import Keeper

from mtvision.testing.numbers import TOLERANCES

torch.set_num_threads(1)  # tests run side by side; more threads than cores wait for one another

DTYPES = {str(item).removeprefix("torch."): item for item in TOLERANCES}
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest --device cuda --dtype bfloat16` runs the property batteries elsewhere."""
    parser.addoption(
        "--device", default="cpu", help="device of the property batteries, e.g. cpu, cuda, cuda:1"
    )
    parser.addoption(
        "--dtype", default="float32", choices=list(DTYPES), help="precision of the property batteries"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Stop at once where the device is not there."""
    config.pluginmanager.register(Keeper())
    name = config.getoption("--device")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise pytest.UsageError(f"--device {name}: {str(error).splitlines()[0]}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError(f"--device {name}: torch {torch.__version__} sees no CUDA device here.")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first, so that two processes end together (`--no-loadscope-reorder`)."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Where property batteries run."""
    return str(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """In which precision property batteries run."""
    return DTYPES[request.config.getoption("--dtype")]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def real_data() -> Path:
    """Folder of small real samples; tests that need it are skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("the folder of small real samples is not beside this checkout")
    return REAL_DATA
