"""Every property of every battery on every registered class, from the one list in `examples.py`.

`pytest tests/testing --device cuda --dtype bfloat16` runs the same tests elsewhere.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from conformance import BATTERY, KINDS

from mtvision.core import registry
from mtvision.testing import BATTERIES, properties
from mtvision.testing.modules import Setting

sys.path.insert(0, str(Path(__file__).parent))
from examples import EXAMPLES, Example

REGISTRIES = {
    "backbone": registry.BACKBONES,
    "adapter": registry.ADAPTERS,
    "decoder": registry.DECODERS,
    "loss": registry.LOSSES,
    "balancer": registry.BALANCERS,
    "step": registry.STEPS,
    "dataset": registry.DATASETS,
    "metric": registry.METRICS,
    "merger": registry.MERGERS,
}
WITHOUT_BATTERY = {
    "head": "a head is part of every network that the adapter battery builds",
    "searcher": "a searcher is a whole run: tests/search and tests/procedures hold known answers",
    "preparation of data": "a preparation unpacks published archives: tests/data/test_prepare_datasets.py",
    "transform": "geometry is a property of all of them at once: tests/data/test_geometry_properties.py",
    "optimizer": "its classes are torch's and mmengine's; tests/engine/test_optimizer.py builds them",
    "schedule": "its classes are mmengine's",
    "protocol": "a protocol is a value: tests/protocols",
    "task": "a constructor makes a value: tests/protocols/test_protocols.py",
    "activation": "seven functions: tests/core/test_prediction.py",
    "colours": "five functions: tests/visualize/test_colours.py",
    "legend of colours": "five functions: tests/visualize/test_panels.py",
    "label derivation": "two functions: tests/data/test_folder.py",
    "transforms preset": "a preset is a list of transforms: tests/data/test_published_pipelines.py",
}
GRAPHS = {"compiles_whole", "exportable_at_any_size"}  # half a minute each: `make long-tests` runs them all
QUICK = {"loss", "balancer", "dataset", "metric", "merger"}  # batteries of milliseconds
FIRST = {(item.kind, item.name): item.label for item in reversed(EXAMPLES)}  # label of a class's first one


def _is_slow(example: Example, name: str) -> bool:
    """Large networks, exports of seconds, and where properties build networks, half of a first example's."""
    if example.slow or name in GRAPHS or (name == "exportable" and not example.export_is_quick):
        return True
    if example.kind in QUICK:
        return False
    if example.label != FIRST[example.kind, example.name]:
        return True
    return (properties(example.kind).index(name) + sorted(FIRST).index((example.kind, example.name))) % 2 == 1


def _marks(example: Example, name: str) -> list[pytest.MarkDecorator]:
    further = example.label != FIRST[example.kind, example.name]
    whole_network = example.kind == "adapter"  # a trace takes seconds, for each of many adapters
    export = name == "exportable" and (further or whole_network) and not example.export_is_quick
    if export or (name in GRAPHS and example.label != "ParallelDecoder"):
        return [pytest.mark.slow, pytest.mark.long]
    return [pytest.mark.slow] if _is_slow(example, name) else []


def _cells(example: Example, name: str) -> list[pytest.MarkDecorator]:
    """The cell of docs/conformance.md that a property of a method fills."""
    counts = example.kind in KINDS and name in BATTERY
    return [pytest.mark.conformance(example.label, BATTERY[name])] if counts else []


PAIRS = [
    pytest.param(
        example,
        name,
        id=f"{example.kind}-{example.label}-{name}",
        marks=[*_marks(example, name), *_cells(example, name)],
    )
    for example in EXAMPLES
    for name in properties(example.kind)
]


@pytest.fixture(scope="session")
def case_of(tmp_path_factory, device, dtype):
    """Cases, built once for each example."""
    folder = tmp_path_factory.mktemp("examples")

    @cache
    def build(position: int):
        return EXAMPLES[position].build(Setting(device, dtype), folder)

    return lambda example: build(EXAMPLES.index(example))


@pytest.mark.parametrize(("example", "name"), PAIRS)
def test_property(example: Example, name: str, case_of):
    report = BATTERIES[example.kind].run(example.label, case_of(example), only=[name], skip=example.skip)
    report.raise_if_failed()
    for reason in report.skipped.values():
        pytest.skip(reason)


@pytest.mark.parametrize(
    ("example", "name"),
    [
        pytest.param(item, name, id=f"{item.kind}-{item.label}-{name}")
        for item in EXAMPLES
        for name in item.skip
    ],
)
def test_declared_exceptions_are_real(example: Example, name: str, case_of, device, dtype):
    """What an example declares not to hold does not hold; otherwise the declaration has to go."""
    if (device, dtype) != ("cpu", torch.float32):
        pytest.skip("exceptions are declared for the CPU in float32")
    report = BATTERIES[example.kind].run(example.label, case_of(example), only=[name])
    assert list(report.failed) == [name]


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registered_class_has_an_example(kind):
    table = REGISTRIES[kind]
    ours = {name for name in table if table[name].__module__.startswith("mtvision.")}
    there = {item.name for item in EXAMPLES if item.kind == kind}
    assert there == ours, f"add an example to tests/testing/examples.py: {sorted(there ^ ours)}"


def test_every_table_has_a_battery_or_a_reason():
    tables = {item.name for item in vars(registry).values() if isinstance(item, registry.Registry)}
    assert tables == set(REGISTRIES) | set(WITHOUT_BATTERY)
    assert set(REGISTRIES) == set(BATTERIES)


def test_labels_of_examples_are_unique():
    labels = [(item.kind, item.label) for item in EXAMPLES]
    assert len(set(labels)) == len(labels)


def test_the_page_lists_every_property():
    page = (Path(__file__).parents[2] / "docs" / "batteries.md").read_text(encoding="utf-8")
    rows = {
        f"| `{item.name}` | {item.claim} |" for one in BATTERIES.values() for item in one.properties.values()
    }
    assert [row for row in sorted(rows) if row not in page] == []
