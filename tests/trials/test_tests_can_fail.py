"""Three single changes of the code that no test noticed once; each of them fails a test now."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Change:
    """A change of one line, and the test that notices it."""

    module: str
    kind: str
    old: str
    new: str
    test: str
    arguments: tuple[Any, ...]

    def mutant(self) -> Any:
        """The class after the change."""
        original = import_module(self.module)
        text = Path(str(original.__file__)).read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.module} has changed: name the line again"
        changed = ModuleType(self.module)
        exec(compile(text.replace(self.old, self.new), self.module, "exec"), vars(changed))
        return getattr(changed, self.kind)


CHANGES = {
    "momentum of the moving average": Change(
        "mtvision.engine.average",
        "AverageHook",
        "get_ema_multi_avg_fn(1 - self.momentum)",
        "get_ema_multi_avg_fn(self.momentum)",
        "engine/test_average.py::test_average_follows_its_recursion",
        (0.1,),
    ),
    "zoom in the predictor": Change(
        "mtvision.evaluation.predictor",
        "Predictor",
        "size[0] / shown)",
        "1.0)",
        "evaluation/test_predictor.py::test_lengths_in_pixels_grow_with_the_zoom",
        ((16, 48),),
    ),
    "the loss scale of fp16": Change(
        "mtvision.engine.optimization.wrapper",
        "PrecisionOptimWrapper",
        'enabled=precision == "fp16"',
        "enabled=False",
        "engine/test_loss_scale.py::test_overflow_skips_the_update_and_halves_the_scale",
        (),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_test_notices(name):
    change = CHANGES[name]
    file, _, function = change.test.partition("::")
    spec = spec_from_file_location(f"changed_{Path(file).stem}", TESTS / file)
    assert spec is not None
    assert spec.loader is not None
    tests = module_from_spec(spec)
    spec.loader.exec_module(tests)
    getattr(tests, function)(*change.arguments)
    setattr(tests, change.kind, change.mutant())
    with pytest.raises(AssertionError):
        getattr(tests, function)(*change.arguments)
