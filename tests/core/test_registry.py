"""Registries: building from configs, and errors that name the config entry at fault."""

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

from mtvision.core import registry
from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import Registry
from mtvision.core.registry.table import TakenNameError

THINGS = Registry("thing")


@THINGS.register_module()
class Box:
    def __init__(self, width, *, height=2, tasks=()):
        self.width, self.height, self.tasks = width, height, tasks


@THINGS.register_module()
class Anything:
    def __init__(self, name, **options):
        self.name, self.options = name, options


def test_build_by_name_and_by_class():
    for kind in ("Box", Box):
        box = THINGS.build({"type": kind, "width": 3}, tasks=("a",))
        assert (type(box), box.width, box.height, box.tasks) == (Box, 3, 2, ("a",))


def test_config_is_not_modified():
    config = {"type": "Box", "width": 3}
    THINGS.build(config)
    assert config == {"type": "Box", "width": 3}


def test_open_ended_arguments_pass():
    assert THINGS.build({"type": "Anything", "name": "x", "depth": 1}).options == {"depth": 1}


def test_unknown_name_lists_near_and_known_ones():
    with pytest.raises(
        UnknownNameError, match=r"Unknown thing 'Bux'. Did you mean 'Box'\?\nKnown: Anything, Box"
    ):
        THINGS.build({"type": "Bux"})


def test_unknown_argument_names_the_class():
    with pytest.raises(UnknownNameError, match=r"Unknown Box argument 'widht'. Did you mean 'width'"):
        THINGS.build({"type": "Box", "widht": 3})


def test_missing_argument_is_named():
    with pytest.raises(TypeError, match=r"Box: missing argument width \(given: \['height'\]\)"):
        THINGS.build({"type": "Box", "height": 3})


def test_config_may_not_give_what_the_suite_supplies():
    with pytest.raises(TypeError, match="Box: 'tasks' is supplied by the suite; remove it from the config"):
        THINGS.build({"type": "Box", "width": 1, "tasks": ("a",)}, tasks=("b",))


@pytest.mark.parametrize("config", [None, "Box", ["Box"], {"width": 3}])
def test_not_a_config(config):
    with pytest.raises(TypeError, match="thing: expected a dict with the key 'type', got"):
        THINGS.build(config)


def test_one_table_for_each_choice_that_outsiders_may_extend():
    tables = {name: item for name, item in vars(registry).items() if isinstance(item, Registry)}
    assert set(tables) == {
        *("BACKBONES", "ADAPTERS", "DECODERS", "HEADS", "LOSSES"),
        *("BALANCERS", "STEPS", "DATASETS", "SEARCHERS", "MERGERS"),
        *("METRICS", "TRANSFORMS", "PRESETS", "PREPARATIONS", "OPTIMIZERS", "SCHEDULES"),
        *("PROTOCOLS", "TASKS", "ACTIVATIONS", "COLOURS", "LEGENDS", "DERIVATIONS"),
    }
    assert tables == registry.tables()
    assert len({table.name for table in tables.values()}) == 22
    assert all(tables.values())


@pytest.mark.parametrize("variable", registry.tables())
def test_every_table_has_the_same_words_for_unknown_and_taken_names(variable, monkeypatch):
    table = registry.tables()[variable]
    with pytest.raises(UnknownNameError, match=rf"^Unknown {table.name} 'nothing-like-it'\.\nKnown: "):
        table["nothing-like-it"]
    monkeypatch.setattr(table, "_loaded", dict(table._loaded))
    monkeypatch.setattr(table, "_places", dict(table._places))
    name = next(iter(table), "added")
    table.register("added", object(), by="one.lab")
    for taken, owner in ((name, ""), ("added", r"one\.lab")):
        message = rf"^{table.name} '{taken}' is registered already, by {owner}.*Choose another name"
        with pytest.raises(TakenNameError, match=message):
            table.register(taken, object(), by="another.lab")
        if variable != "PROTOCOLS":
            with pytest.raises(TakenNameError, match=message):
                table.register_module(taken)(Box)
    table.register("added", "another", by="another.lab", force=True)
    assert table["added"] == "another"


def test_a_protocol_that_was_replaced_is_listed(monkeypatch):
    table = registry.PROTOCOLS
    for name in ("_loaded", "_places"):
        monkeypatch.setattr(table, name, dict(getattr(table, name)))
    assert table.replaced() == {}
    table.register("nyud-invpt", "mine", by="one.lab", force=True)
    assert registry.replaced_entries() == [
        {"table": "protocol", "name": "nyud-invpt", "by": "one.lab.nyud-invpt"}
    ]


@pytest.mark.slow
def test_signatures_read_from_source_are_those_of_the_classes():
    """In a fresh process, because a table reads the source only of what is not imported."""
    code = (
        "import inspect, sys\n"
        "from mtvision.core import registry\n"
        "tables = [item for item in vars(registry).values() if isinstance(item, registry.Registry)]\n"
        "def shown(items):\n"
        "    return [(item.name, item.kind, item.default is item.empty) for item in items.values()]\n"
        "def texts(items):\n"
        "    return [str(item.annotation) for item in items.values()]\n"
        "tables = [table for table in tables if table is not registry.PROTOCOLS]  # values, no classes\n"
        "sources = [(table, table.parameters(name)) for table in tables for name in table]\n"
        "read = [shown(items) for _, items in sources]\n"
        "assert len(read) > 80 and 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "wrapped = registry.SCHEDULES  # mmengine hides their signatures when they are imported\n"
        "read, sources = zip(*[(a, b) for a, b in zip(read, sources) if b[0] is not wrapped])\n"
        "tables = [table for table in tables if table is not wrapped]\n"
        "classes = [inspect.signature(kind).parameters for table in tables for kind in table.values()]\n"
        "found = [shown(items) for items in classes]\n"
        "assert list(read) == found, [pair for pair in zip(read, found) if pair[0] != pair[1]]\n"
        "foreign = (registry.OPTIMIZERS, registry.SCHEDULES)  # torch and mmengine evaluate annotations\n"
        "for (table, items), kind in zip(sources, classes):\n"
        "    assert table in foreign or texts(items) == texts(kind), (texts(items), texts(kind))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_name_in_a_config_imports_its_package():
    """In a fresh process, where nothing of the packages was imported before."""
    code = (
        "import sys\n"
        "from mtvision.core.registry import BALANCERS, LOSSES, STEPS\n"
        "for table, name, home in (LOSSES, 'L1Loss', 'losses'), (BALANCERS, 'LogSum', 'balance'), "
        "(STEPS, 'PlainStep', 'steps'):\n"
        "    assert f'mtvision.{home}' not in sys.modules, home\n"
        "    assert table.get(name).__module__.startswith(f'mtvision.{home}.')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_registered_classes_are_documented():
    for table in (registry.LOSSES, registry.BALANCERS, registry.STEPS):
        assert table
        for name, item in table.items():
            assert inspect.getdoc(item), name


def test_what_an_outsider_replaced_is_listed(monkeypatch):
    monkeypatch.setattr(registry.METRICS, "_loaded", {})
    assert registry.METRICS["iou"].__name__ == "IoU"
    assert registry.replaced_entries() == []

    class Mine:
        pass

    registry.METRICS.register_module("depth", force=True)(Mine)
    registry.METRICS["a new name"] = Mine
    by = f"{__name__}.test_what_an_outsider_replaced_is_listed.<locals>.Mine"
    assert registry.replaced_entries() == [{"table": "metric", "name": "depth", "by": by}]
    registry.METRICS["depth"] = registry.METRICS["iou"]  # one of the suite's own under another's name
    assert registry.replaced_entries() == [
        {"table": "metric", "name": "depth", "by": "mtvision.metrics.iou.IoU"}
    ]


def test_constants_of_a_class_are_read_without_importing_it():
    code = (
        "import sys; from mtvision.core.registry import METRICS; "
        "print(METRICS.constant('edge', 'expensive'), METRICS.constant('iou', 'expensive'), "
        "METRICS.constant('iou', 'none'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False", "None", "False"]


def test_restoring_keeps_the_values_of_the_suite(tmp_path, monkeypatch):
    """They are registered when the table is first used, which may be after `saved`."""
    (tmp_path / "suite_of_numbers.py").write_text(
        "from numbers_table import TABLE\nTABLE.register('one', 1, by=__name__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    table = Registry("number", filled_by="suite_of_numbers")
    monkeypatch.setitem(sys.modules, "numbers_table", ModuleType("numbers_table"))
    sys.modules["numbers_table"].TABLE = table
    saved = table.saved()
    table.register("two", 2, by="outsider")
    table.restore(saved)
    assert dict(table) == {"one": 1}
    del sys.modules["suite_of_numbers"]
