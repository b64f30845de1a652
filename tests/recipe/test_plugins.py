"""Plugins: named in a config, on the command line or by an entry point; one line for every mistake."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import lab
import pytest
import warm
from trial import no_plugins

from mtvision import __version__
from mtvision.cli.main import COMMANDS, call
from mtvision.core import registry
from mtvision.core.naming import UnknownNameError
from mtvision.protocols.entries import build_task
from mtvision.recipe.config import load_config
from mtvision.recipe.plugins import PluginError, load_plugins, plugin_entries

ROOT = Path(__file__).parents[2]
SMALL = """
from mtvision.core.registry import DECODERS

@DECODERS.register_module()
def SmallDecoder(channels, strides, tasks, width=3):
    return width
"""
"""A plugin that imports nothing slow."""
CONFIG = """
protocol = "synthetic-scenes"
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet18"),
    decoder=dict(type="SmallDecoder"),
    head=dict(type="ConvHead"),
)
"""


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """No plugin is loaded; afterwards, tables and modules are as before."""
    with no_plugins(tmp_path, monkeypatch):
        yield monkeypatch


@pytest.fixture
def write(tmp_path):
    def write(text, name="config.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def python(*arguments, cwd, path=()):
    """A command of another process: (exit code, stdout, stderr)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *path]))}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def mtvision(*arguments, cwd, path=()):
    known = {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *path]))}
    done = warm.run(["-m", "mtvision.cli.main", *arguments], cwd=cwd, variables=known, path=[ROOT, *path])
    return done.returncode, done.stdout, done.stderr


# Where plugins are named


def test_a_base_that_is_imported_from_a_package_names_plugins_too(fresh, write, tmp_path):
    """Its relative path starts at the base's own folder."""
    write("plugins = ['../parts/smalllab.py']\n" + CONFIG, "somelab/recipes/base.py")
    write(SMALL, "somelab/parts/smalllab.py")
    write("", "somelab/__init__.py")
    fresh.syspath_prepend(tmp_path)
    text = "from mmengine.config import read_base\n\nwith read_base():\n"
    text += "    from somelab.recipes.base import model, plugins, protocol\n"
    config = load_config(write(text, "elsewhere/leaf.py"))
    assert config["plugins"] == [str(tmp_path / "somelab" / "parts" / "smalllab.py")]


def test_a_relative_path_in_a_config_starts_at_the_configs_folder(fresh, write, tmp_path):
    write(SMALL, "parts/smalllab.py")
    config = load_config(write("plugins = ['../parts/smalllab.py']\n" + CONFIG, "configs/a.py"))
    assert config["plugins"] == [str(tmp_path / "parts" / "smalllab.py")]
    assert registry.DECODERS["SmallDecoder"].__module__ == "smalllab"
    assert str(tmp_path / "parts") not in sys.path


def test_a_relative_path_on_the_command_line_starts_at_the_working_folder(fresh, write, tmp_path):
    write(SMALL, "parts/smalllab.py")
    fresh.chdir(tmp_path / "parts")
    config = load_config(write(CONFIG), plugins=["./smalllab.py"])
    assert config["plugins"] == [str(tmp_path / "parts" / "smalllab.py")]
    assert "SmallDecoder" in registry.DECODERS


def test_a_module_is_found_on_the_path_of_python(fresh, write, tmp_path):
    write("", "site/smalllab/__init__.py")
    write(SMALL, "site/smalllab/parts.py")
    fresh.syspath_prepend(tmp_path / "site")
    load_config(write("plugins = ['smalllab.parts']\n" + CONFIG))
    assert registry.DECODERS["SmallDecoder"].__module__ == "smalllab.parts"


def test_a_folder_is_a_package_and_sees_its_own_modules(fresh, write, tmp_path):
    write("from smalllab.parts import SmallDecoder\n", "parts/smalllab/__init__.py")
    write(SMALL, "parts/smalllab/parts.py")
    load_plugins([str(tmp_path / "parts" / "smalllab")])
    assert "SmallDecoder" in registry.DECODERS


def test_the_lists_of_bases_and_of_the_command_line_add_up_once_each(fresh, write, tmp_path):
    for name in ("one", "two", "three"):
        write(f"LOADED = '{name}'\n", f"shared/{name}lab.py")
    write("plugins = ['./onelab.py', './twolab.py']\nseed = 3\n", "shared/base.py")
    text = (
        "_base_ = ['shared/base.py']\nplugins = ['shared/twolab.py', 'shared/threelab.py']\n" + CONFIG
    ).replace("SmallDecoder", "ParallelDecoder")
    names = [str(tmp_path / "shared" / f"{name}lab.py") for name in ("one", "two", "three")]
    config = load_config(write(text), plugins=[names[0]])
    assert (config["plugins"], config["seed"]) == (names, 3)
    lazy = (
        "from mmengine.config import read_base\nwith read_base():\n    from .shared.base import seed\n"
        "plugins = ['./shared/threelab.py']\n" + CONFIG
    ).replace("SmallDecoder", "ParallelDecoder")
    assert load_config(write(lazy))["plugins"] == names
    completed = write(config.text, "elsewhere/config.py")
    assert load_config(completed)["plugins"] == names


def test_a_list_that_is_computed_counts_too(fresh, write, tmp_path):
    write(SMALL, "smalllab.py")
    config = load_config(write("_NAME = 'smalllab'\nplugins = ['./' + _NAME + '.py']\ndel _NAME\n" + CONFIG))
    assert config["plugins"] == [str(tmp_path / "smalllab.py")]


@pytest.mark.parametrize("value", ["'mylab'", "[1]", "dict(a='mylab')"])
def test_plugins_are_a_list_of_texts(fresh, write, value):
    with pytest.raises(ValueError, match="plugins must be a list of strings, got"):
        load_config(write(f"plugins = {value}\n" + CONFIG))


def test_every_command_that_uses_tables_takes_plugins(capsys):
    without = {
        "convert-checkpoint",
        "evaluate-boundaries",
        "compare-runs",
        "benchmark",
        "configs",
        "new",
        "init",
        "share",
    }
    for command in COMMANDS:
        words = [command, "check", "--help"] if command == "leaderboard" else [command, "--help"]
        with pytest.raises(SystemExit):
            call(words[0], words[1:])
        assert ("--plugin" in capsys.readouterr().out) == (command not in without), command


# Entry points


def test_an_entry_point_is_imported_when_a_name_is_not_found(fresh, write, tmp_path):
    write(SMALL, "site/smalllab.py")
    lab.announce(tmp_path / "site", "smalllab")
    fresh.syspath_prepend(tmp_path / "site")
    assert registry.DECODERS["ParallelDecoder"].__name__ == "ParallelDecoder"
    assert "smalllab" not in sys.modules
    load_config(write(CONFIG))
    assert registry.DECODERS["SmallDecoder"].__module__ == "smalllab"
    assert plugin_entries() == [
        {
            "name": "smalllab",
            "version": "0.9",
            "sha256": hashlib.sha256(SMALL.encode()).hexdigest(),
            "file": "smalllab.py",
        }
    ]


def test_a_broken_entry_point_is_said_once_and_stops_only_who_names_it(fresh, write, tmp_path, caplog):
    write("raise RuntimeError('no licence')\n", "site/smalllab.py")
    lab.announce(tmp_path / "site", "smalllab")
    fresh.syspath_prepend(tmp_path / "site")
    for _ in range(2):
        with pytest.raises(UnknownNameError, match="Unknown decoder 'Nothing'"):
            registry.DECODERS["Nothing"]
    assert len(caplog.messages) == 1
    assert "plugin smalllab: RuntimeError: no licence" in caplog.messages[0]
    assert caplog.messages[0].endswith("It is left out; the entry point 'lab' announces it.")
    with pytest.raises(PluginError, match="plugin smalllab: RuntimeError: no licence"):
        load_plugins(["smalllab"])


def test_an_entry_point_alone_replaces_nothing(fresh, write, tmp_path, caplog):
    text = SMALL.replace("register_module()", "register_module('ParallelDecoder', force=True)")
    write(text, "site/smalllab.py")
    lab.announce(tmp_path / "site", "smalllab")
    fresh.syspath_prepend(tmp_path / "site")
    assert registry.DECODERS.get("Nothing") is None
    assert "cannot be replaced by a plugin that only an entry point announces" in caplog.text
    assert registry.DECODERS["ParallelDecoder"].__module__ == "mtvision.models.decoders.parallel"
    load_plugins(["smalllab"])
    assert registry.replaced_entries() == [
        {"table": "decoder", "name": "ParallelDecoder", "by": "smalllab.SmallDecoder"}
    ]


# One line for every mistake


TAKEN = "decoder 'ParallelDecoder' is registered already, by mtvision.models.decoders.parallel ("
MISTAKES = {  # {name: (content of the file, what the line has to say)}
    "raises": (
        "import os\n\n\ndef f():\n    return {}['key']\n\n\nf()\n",
        ["smalllab.py: KeyError: 'key' (", "smalllab.py:5)."],
    ),
    "raises several lines": ("raise ValueError('one.\\ntwo')\n", ["ValueError: one (", "smalllab.py:1)."]),
    "raises in another package": ("import json\njson.loads('{')\n", ["JSONDecodeError: ", "smalllab.py:2)."]),
    "no syntax": ("x = 1\ndef (\n", ["SyntaxError: ", "smalllab.py:2)."]),
    "lacks a package": (
        "import a_missing_package\n",
        ["ModuleNotFoundError: No module named 'a_missing_package' (", "smalllab.py:1)."],
    ),
    "ends the program": ("import sys\nsys.exit(3)\n", ["ends the program when it is imported"]),
    "takes a name": (
        SMALL.replace("register_module()", "register_module('ParallelDecoder')"),
        [
            TAKEN,
            "parallel.py). Choose another name, or replace it on purpose with force=True",
            "smalllab.py:4).",
        ],
    ),
    "takes a protocol": (
        "from dataclasses import replace\nfrom mtvision.protocols import SYNTHETIC, register_protocol\n"
        "register_protocol(replace(SYNTHETIC, title='mine'), by=__name__)\n",
        ["protocol 'synthetic-scenes' is registered already, by mtvision.protocols (", "smalllab.py:3)."],
    ),
    "needs a newer suite": (
        "mtvision_requires = '>=99.1'\nimport a_missing_package\n",
        ["needs mtvision >=99.1, but this is " + __version__],
    ),
    "computes that it needs one": (
        "mtvision_requires = '>=' + '99.1'\n",
        ["needs mtvision >=99.1, but this is " + __version__],
    ),
    "needs no version": (
        "mtvision_requires = 'new'\n",
        ["mtvision_requires is 'new', expected a text such as '>=0.2'."],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("where", ["config", "command line"])
def test_a_plugin_that_cannot_be_used_ends_the_command_with_one_line(fresh, write, capsys, name, where):
    content, parts = MISTAKES[name]
    path = write(content, "smalllab.py")
    before = {table: dict(item._loaded) for table, item in registry.tables().items()}
    if where == "config":
        code = call("cost", [str(write("plugins = ['./smalllab.py']\n" + CONFIG))])
    else:
        code = call("cost", [str(write(CONFIG)), "--plugin", str(path)])
    lines = capsys.readouterr().err.splitlines()
    assert (code, lines[1:]) == (2, ["(MTVISION_TRACEBACK=1 shows where.)"]), lines
    assert lines[0].startswith(f"mtvision cost: plugin {path}")
    assert all(part in lines[0] for part in parts), lines[0]
    assert {table: dict(item._loaded) for table, item in registry.tables().items()} == before
    assert "smalllab" not in sys.modules


ABSENT = {  # {name: (what is given, what the line has to say)}
    "module": ("small_lab", ["plugin 'small_lab' is not found", "add its folder to PYTHONPATH"]),
    "near module": ("mtvision.testin", ["Did you mean 'mtvision.testing'?"]),
    "module in the folder": ("smalllab", ["Did you mean './smalllab.py'?"]),
    "file": ("./smallab.py", ["smallab.py does not exist. Did you mean ", "smalllab.py?"]),
    "folder": ("./parts/", ["the folder has no __init__.py; name one of its files."]),
    "no Python": ("./parts/notes.txt", ["expected a .py file, the folder of a package or a module's name."]),
    "no module name": ("./parts/my-lab.py", ["'my-lab' cannot be a module's name"]),
    "hides a module": ("./parts/json.py", ["another module has the name 'json' already ("]),
    "hides a plugin": ("./parts/other/smalllab.py", ["another module has the name 'smalllab' already ("]),
    "nothing": ("", ["plugin '' is not found"]),
}


@pytest.mark.parametrize("name", ABSENT)
def test_a_plugin_that_is_not_there_is_told_with_what_was_probably_meant(fresh, write, tmp_path, name):
    for file in ("smalllab.py", "parts/notes.txt", "parts/my-lab.py", "parts/json.py"):
        write(SMALL, file)
    write("", "parts/other/smalllab.py")
    if name == "hides a plugin":
        load_plugins(["./smalllab.py"], tmp_path)
    given, parts = ABSENT[name]
    with pytest.raises(PluginError) as told:
        load_plugins([given], tmp_path)
    assert len(str(told.value).splitlines()) == 1
    assert all(part in str(told.value) for part in parts), told.value


def test_what_failed_can_be_loaded_after_it_is_mended(fresh, write, tmp_path):
    package = write(SMALL, "smalllab/parts.py").parent
    write("from smalllab import parts\nraise RuntimeError('later')\n", "smalllab/__init__.py")
    with pytest.raises(PluginError, match="RuntimeError: later"):
        load_plugins([str(package)])
    assert "SmallDecoder" not in registry.DECODERS
    write("from smalllab import parts  # mended\n", "smalllab/__init__.py")
    load_plugins([str(package)])
    assert "SmallDecoder" in registry.DECODERS


def test_two_plugins_of_one_name_are_told_with_both_files(fresh, write, tmp_path):
    write(SMALL, "onelab.py")
    write(SMALL, "twolab.py")
    with pytest.raises(
        PluginError, match="'SmallDecoder' is registered already, by onelab .*onelab.py"
    ) as told:
        load_plugins(["./onelab.py", "./twolab.py"], tmp_path)
    assert "twolab.py:4" in str(told.value)


# What records say


def test_a_package_has_one_hash_of_all_its_files(fresh, write, tmp_path):
    write("__version__ = '2.0'\n", "smalllab/__init__.py")
    write(SMALL, "smalllab/parts.py")
    fresh.syspath_prepend(tmp_path)
    load_plugins(["smalllab.parts"])
    hashes = {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("smalllab/__init__.py", "smalllab/parts.py")
    }
    listing = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    assert plugin_entries() == [
        {
            "name": "smalllab.parts",
            "version": "2.0",
            "sha256": hashlib.sha256(listing.encode()).hexdigest(),
            "file": "smalllab/parts.py",
        }
    ]


def test_the_version_is_that_of_the_installed_package(fresh):
    load_plugins(["packaging.tags"])
    (entry,) = plugin_entries()
    assert (entry["name"], entry["version"]) == ("packaging.tags", metadata.version("packaging"))


def test_a_config_without_plugins_imports_no_torch_and_one_with_a_light_plugin_neither(write, tmp_path):
    write(SMALL, "smalllab.py")
    write(CONFIG.replace("SmallDecoder", "ParallelDecoder"), "plain.py")
    write("plugins = ['./smalllab.py']\n" + CONFIG.replace('type="Small', 'wdith=3, type="Small'))
    code = (
        "import sys; from mtvision.cli.main import call\n"
        "from mtvision.recipe.check import check_config; from mtvision.recipe.config import load_config\n"
        "check_config(load_config('plain.py'), ['model'])\n"
        "print(call('cost', ['config.py']), 'torch' in sys.modules)\n"
    )
    done, out, err = python("-c", code, cwd=tmp_path)
    assert (done, out.split()) == (0, ["2", "False"]), err
    assert "Unknown SmallDecoder argument 'wdith'. Did you mean 'width'?" in err


# The page


PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_works(fresh, write, tmp_path):
    module, config = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    write(module, "mylab/supervised.py")
    path = write(
        config.replace("..., ", 'backbone=dict(type="TimmBackbone", name="resnet18"), '), "configs/a.py"
    )
    load_config(path)
    decoder = registry.DECODERS.build(
        {"type": "SupervisedDecoder", "width": 4},
        channels=[4, 8],
        strides=[4, 8],
        tasks=[build_task("depth")],
    )
    assert decoder.deep_supervision == 0.4
    assert plugin_entries()[0]["version"] == "1.2"


def test_the_page_lists_every_table():
    listed = re.findall(r"`([A-Z]+)`", PAGE.split("## What can be registered")[1].split("\n## ")[0])
    assert set(listed) - {"TABLE", "NAME"} == set(registry.tables())


# Whole runs


@pytest.mark.slow
def test_a_lab_of_its_own_trains_scores_and_predicts_from_another_folder(tmp_path):
    lab.write_lab(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "away").mkdir()
    (tmp_path / "configs" / "a.py").write_text("plugins = ['../labparts.py']\n" + lab.CONFIG)
    code, _, err = mtvision("train", "configs/a.py", "--work-dir", "run", cwd=tmp_path)
    assert code == 0, err
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["plugins"] == [
        {
            "name": "labparts",
            "version": "3.1",
            "sha256": hashlib.sha256(lab.MODULE.encode()).hexdigest(),
            "file": "labparts.py",
        }
    ]
    assert (record["missing"], record["failures"], record["replaced"]) == ([], [], [])
    assert str(tmp_path) not in json.dumps(record)
    assert [task["metric"] for task in record["tasks"]] == ["iou", "lab_distance"]
    assert list((tmp_path / "run" / "pictures").glob("*.png"))
    again = ["test", "../run/config.py", "../run/iter_3.pth", "--work-dir", "again"]
    code, _, err = mtvision(*again, cwd=tmp_path / "away")
    assert code == 0, err
    tested = json.loads((tmp_path / "away" / "again" / "record.json").read_text())
    assert (tested["scores"], tested["plugins"]) == (record["scores"], record["plugins"])
    code, out, err = mtvision("table", "run", "--plugin", "labparts.py", cwd=tmp_path)
    assert code == 0, err
    assert "lab-discs" in out


@pytest.mark.slow
def test_launch_passes_plugins_to_its_runs(tmp_path):
    lab.write_package(tmp_path / "site")
    (tmp_path / "a.py").write_text(lab.CONFIG)
    words = ["launch", "a.py", "--seeds", "0", "--plugin", "mylab.multitask", "--results", "results"]
    code, out, err = mtvision(*words, cwd=tmp_path, path=[tmp_path / "site"])
    assert code == 0, out + err
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "results").iterdir())]
    assert [record["seed"] for record in records] == [0]
    assert [item["file"] for item in records[0]["plugins"]] == ["mylab/multitask.py"]
    code, out, err = mtvision(*words, cwd=tmp_path, path=[tmp_path / "site"])
    assert "1 finished, 0 to train" in out + err


@pytest.mark.slow
def test_an_installed_package_is_used_without_being_named(tmp_path):
    lab.write_package(tmp_path / "site")
    lab.announce(tmp_path / "site", "mylab.multitask", "0.9")
    (tmp_path / "a.py").write_text(lab.CONFIG)
    code, _, err = mtvision("train", "a.py", "--work-dir", "run", cwd=tmp_path, path=[tmp_path / "site"])
    assert code == 0, err
    (entry,) = json.loads((tmp_path / "run" / "record.json").read_text())["plugins"]
    assert (entry["name"], entry["version"]) == ("mylab.multitask", "0.9")


@pytest.mark.slow
def test_spawned_workers_of_a_loader_load_the_plugin_before_they_unpickle(tmp_path):
    lab.write_lab(tmp_path)
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "script.py").write_text(
        "from torch.utils.data import DataLoader\n"
        "from mtvision.core.registry import DATASETS\n"
        "from mtvision.core.sample import collate\n"
        "from mtvision.data.part import PartOfDataset\n"
        "from mtvision.protocols import own_protocol\n"
        "from mtvision.recipe.plugins import load_plugins\n"
        "def ends_even(name): return int(name[-1]) % 2 == 0\n"
        "if __name__ == '__main__':\n"
        "    load_plugins(['../labparts.py'])\n"
        "    protocol = own_protocol('lab', {'distance': {}})\n"
        "    whole = DATASETS['LabDiscs'](protocol=protocol, split='train')\n"
        "    dataset = PartOfDataset(whole, ends_even)\n"
        "    loader = DataLoader(dataset, batch_size=3, num_workers=1, collate_fn=collate,\n"
        "                        multiprocessing_context='spawn')\n"
        "    print([tuple(batch.image.shape) for batch in loader])\n"
    )
    code, out, err = python("script.py", cwd=tmp_path / "away")
    assert (code, out.strip()) == (0, "[(3, 3, 32, 32)]"), err
