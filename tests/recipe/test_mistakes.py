"""All mistakes of a config at once, each with its dotted key; also those of options and of own classes."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from mtvision.core.naming import BuildError, ConfigError, Mistakes, ReportedError, UnknownNameError, gathering
from mtvision.core.registry import BALANCERS, DATASETS, DECODERS, Registry
from mtvision.core.registry.sources import Definition
from mtvision.core.values import ByTask, Entry, Positive, check_value
from mtvision.models import build_network
from mtvision.recipe.check import TO_TRAIN, check_config, load_checked
from mtvision.recipe.config import load_config
from mtvision.recipe.settings import protocol_of

if TYPE_CHECKING:
    from mtvision.core.task import Task

BASE = """
protocol = "synthetic-scenes"
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet18"),
    decoder=dict(type="ParallelDecoder"),
    head=dict(type="ConvHead"),
)
train_data = dict(dataset=dict(type="SyntheticScenes", split="train"), batch_size=2)
test_data = dict(dataset=dict(type="SyntheticScenes", split="test"))
optimizer = dict(type="AdamW", lr=1e-3)
training = dict(iterations=10)
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "config.py"
        path.write_text(text)
        return path

    return write


def mistakes(path, *options):
    """{key: message} of everything that is wrong."""
    try:
        load_checked(path, options, needs=TO_TRAIN)
    except ConfigError as error:
        return {mistake.key: str(mistake) for mistake in error.mistakes}
    except (ReportedError, ValueError, TypeError) as error:
        return {"": str(error)}
    return {}


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """The base config, completed, as plain data."""
    path = tmp_path_factory.mktemp("base") / "base.py"
    path.write_text(BASE)
    return dict(load_config(path))


def told(completed, key, value):
    """The message about a config with one value changed; empty if it is right."""
    changed = dict(completed)
    node: Any = changed
    *parents, last = key.split(".")
    for name in parents:
        node[name] = dict(node[name])
        node = node[name]
    node[last] = value
    try:
        check_config(changed)
    except (ReportedError, ValueError, TypeError) as error:
        return str(error)
    return ""


def test_all_mistakes_of_file_and_options_are_told_at_once(write):
    path = write(
        BASE.replace("iterations=10", "iteratoins=10, precision='fp61'") + "balencer = dict(type='LogSum')\n"
    )
    options = ("test_data.dataset.lenght=4", "optimzer.lr=3", "model.decoder.width=wide", "seed")
    with pytest.raises(ConfigError) as caught:
        load_checked(path, options)
    lines = str(caught.value).split("\n")
    assert lines[0] == f"config {path}: 7 mistakes"
    assert [mistake.key for mistake in caught.value.mistakes] == [
        "balencer",
        "training.iteratoins",
        "--cfg-options",
        "optimzer.lr",
        "training.precision",
        "model.decoder.width",
        "test_data.dataset.lenght",
    ]
    assert all(mistake.key in str(mistake) for mistake in caught.value.mistakes)
    assert "  training.iteratoins: Unknown key of 'training' in config.py 'iteratoins'. Did you mean" in str(
        caught.value
    )


def test_a_single_mistake_is_raised_as_it_is(write):
    with pytest.raises(UnknownNameError, match=r"^model\.decoder\.widht: Unknown ParallelDecoder argument"):
        load_checked(write(BASE), ["model.decoder.widht=3"])


def test_a_misspelt_key_is_one_mistake_where_it_was_required(write):
    assert list(mistakes(write(BASE.replace("lr=1e-3", "lrr=1e-3")))) == [""]
    assert list(mistakes(write(BASE.replace("decoder=dict", "decodr=dict")))) == [""]
    assert (
        "lenght"
        in mistakes(write(BASE.replace('type="AdamW"', 'tpye="AdamW", lenght=3')))["optimizer.lenght"]
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_data.batch_size", 2.5, "train_data.batch_size must be an integer of at least 1, got 2.5."),
        ("training.val_interval", -3, "training.val_interval must be an integer of at least 0, got -3."),
        ("evaluation.pictures", -1, "evaluation.pictures must be an integer of at least 0, got -1."),
        (
            "training.micro_batches",
            True,
            "training.micro_batches must be an integer of at least 1, got True",
        ),
        ("logging.wandb", "maybe", "logging.wandb must be true or false, got 'maybe'."),
        ("training.iterations", 5.5, "training.iterations must be an integer of at least 1, got 5.5."),
        ("optimizer.lr", "fast", "optimizer.lr must be a number of at least 0, got 'fast'."),
        ("tasks", "dept", "tasks: Unknown task of protocol synthetic-scenes 'dept'. Did you mean 'depth'?"),
        ("optimizer.lr", float("nan"), "optimizer.lr must be a number of at least 0, got nan. Numbers are"),
        ("optimizer.lr", float("inf"), "got inf. Numbers are finite."),
        ("optimizer.lr", 10**400, "Numbers are finite."),
        ("optimizer.lr", [1e-3], "optimizer.lr must be a number of at least 0, got [0.001]."),
        ("optimizer.lr", None, "optimizer.lr must be a number of at least 0, got None."),
        ("training.iterations", 10**30, "Integers have 64 bits."),
        ("seed", 2**32, "seed must be an integer between 0 and 4294967295"),
        ("name", "", "name must be a string or None, got ''. It is empty."),
        ("logging.project", None, "logging.project must be a string, got None."),
        ("training", 5, "training must be a dict, got 5."),
        ("training", [], "training must be a dict, got []."),
        ("model", ["x"], "model must be a dict or None, got ['x']."),
        ("train_data", True, "train_data must be a dict or None, got True."),
        ("schedule", {"type": "PolyLR"}, "schedule must be a list of dicts or None"),
        ("schedule", [{"type": "PolyLR", "power": "x"}], "schedule.0.power must be a number, got 'x'."),
        ("schedule", [{"type": "PolyLR", "powr": 1}], "schedule.0.powr: Unknown PolyLR argument 'powr'."),
        ("optimizer.betas", [0.9, "x"], "optimizer.betas must be"),
        ("optimizer.momentum", 0.9, "optimizer.momentum: Unknown AdamW argument 'momentum'."),
        ("optimizer.lr_factors", {"*": -1}, "optimizer.lr_factors.* must be a number of at least 0, got -1."),
        (
            "balancer",
            {"type": "FixedWeights", "weights": {"dpeth": 1}},
            "balancer.weights.dpeth: Unknown task",
        ),
        (
            "balancer",
            {"type": "FixedWeights", "weights": {"depth": 1}},
            "balancer.weights: no entry of semseg",
        ),
        (
            "model.decoder",
            {"type": "ParallelDecoder", "task_widths": {"dpeth": 1}},
            "task_widths.dpeth: Unknown",
        ),
        ("model.heads", {"dpeth": {"type": "ConvHead"}}, "model.heads.dpeth: Unknown task in model.heads"),
        ("training.loss_options", {"dpeth": {}}, "training.loss_options.dpeth: Unknown task in training"),
        (
            "search",
            {"type": "RSASearcher", "held_out": 2},
            "search.held_out must be a number between 0",
        ),
        ("step", {"type": "DataMapStep", "step": {"type": "Plain"}}, "step.step.type: Unknown step 'Plain'."),
        ("plugins", "mylab", "plugins must be a list of strings, got 'mylab'. Did you mean ['mylab']?"),
        (
            "protocol",
            {"id": "x", "tasks": {"depth": {"max_dept": 3}}},
            "protocol.tasks.depth.max_dept: Unknown",
        ),
        (
            "protocol",
            {"id": "x", "tasks": {"depth": {"max_depth": "far"}}},
            "protocol.tasks.depth.max_depth must",
        ),
        ("protocol", {"id": "x", "tasks": {"detph": {}}}, "protocol.tasks.detph: Unknown task 'detph'."),
        ("protocol", {"id": "", "tasks": {"depth": {}}}, "protocol.id must be a string, got ''."),
        ("protocol", {"tasks": {"depth": {}}}, "protocol.id is missing; expected a string."),
        (
            "protocol",
            {"id": "x", "tasks": {"depth": {}}, "loss_weights": {"edge": 1}},
            "loss_weights.edge: Unk",
        ),
    ],
    ids=str,
)
def test_what_is_told_about_a_value(completed, key, value, message):
    assert message in told(completed, key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.lr", 1),
        ("optimizer.betas", (0.9, 0.99)),
        ("training.clip_grad", 5),
        ("tasks", "depth,edge"),
        (
            "train_data.dataset",
            {"type": "SyntheticScenes", "transforms": {"preset": "light", "size": [32, 32]}},
        ),
        ("balancer", {"type": "Uncertainty", "factors": 1}),
        ("schedule", []),
        ("protocol", {"id": "x", "tasks": {"depth": {"max_depth": 10}}, "splits": {"train": 3}}),
    ],
    ids=str,
)
def test_what_is_right_is_accepted(completed, key, value):
    assert told(completed, key, value) == ""


def test_labels_of_folders_and_their_derivations(completed):
    labels = {
        "depth": {"folder": "d", "sclae": 3},
        "edge": {"derive": "edges_from_clases", "source": "semseg"},
    }
    message = told(completed, "train_data.dataset", {"type": "FolderDataset", "root": "x", "labels": labels})
    assert "train_data.dataset.labels.depth.sclae: Unknown key of" in message
    assert "train_data.dataset.labels.edge.derive: Unknown label derivation 'edges_from_clases'" in message
    numbers = {"semseg": {"folder": "s", "ids": {"3": 1}}}
    assert not told(
        completed, "train_data.dataset", {"type": "FolderDataset", "root": "x", "labels": numbers}
    )


@pytest.fixture
def own():
    """A decoder, a balancer and a data set of somebody else, imported already."""

    @DECODERS.register_module()
    class OwnDecoder:
        task_options = ("task_ranks",)

        def __init__(
            self,
            *,
            channels: Sequence[int],
            tasks: Sequence[Task],  # a name that only type checkers can see
            rank: Annotated[int, "no range of ours"] = 4,
            none: int = None,  # noqa: RUF013  as people write it
            width: Positive = 8,
            task_ranks: Annotated[Mapping[str, int], ByTask()] | None = None,
            inner: Annotated[Mapping[str, Any], Entry("DECODERS")] | None = None,
        ) -> None: ...

    @BALANCERS.register_module()
    class OwnBalancer:
        def __init__(self, *, tasks, rates: dict[str, float] | None = None, **options): ...

    @DATASETS.register_module()
    class OwnDataset:
        def __init__(self, root, transforms="tensor", **options): ...

    yield
    for table, name in ((DECODERS, "OwnDecoder"), (BALANCERS, "OwnBalancer"), (DATASETS, "OwnDataset")):
        del table[name]


@pytest.mark.usefixtures("own")
def test_classes_of_others_are_judged_by_their_annotations(completed):
    wrong = {
        "type": "OwnDecoder",
        "rank": "x",
        "width": 0,
        "task_ranks": {"dpeth": 1},
        "inner": {"type": "No"},
    }
    message = told(completed, "model.decoder", {"type": "OwnDecoder", **wrong})
    assert message.startswith("config: 4 mistakes")
    assert "model.decoder.rank must be an integer, got 'x'. The default is 4." in message
    assert "model.decoder.width must be an integer of at least 1, got 0." in message
    assert "model.decoder.task_ranks.dpeth: Unknown task in model.decoder.task_ranks 'dpeth'." in message
    assert "model.decoder.inner.type: Unknown decoder 'No'." in message
    assert not told(completed, "model.decoder", {"type": "OwnDecoder", "rank": 2, "task_ranks": {"depth": 1}})


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "words"),
    [
        (typing.List, [1, "a"], 3, "a list"),  # noqa: UP006  as people write it
        (typing.Dict, {"a": 1}, [1], "a dict"),  # noqa: UP006
        (typing.Tuple, (1, 2), "a", "a list"),  # noqa: UP006
        (typing.Optional[typing.Dict], None, 3, "a dict"),  # noqa: UP006, UP045
        (Sequence, [1], 3, "a list"),
    ],
)
def test_annotations_that_do_not_say_what_a_container_holds(kind, right, wrong, words):
    check_value("x", right, kind)
    with pytest.raises(ValueError, match=rf"x must be {words}"):
        check_value("x", wrong, kind)


@pytest.mark.usefixtures("own")
def test_none_is_right_where_it_is_the_default(completed):
    assert not told(completed, "model.decoder", {"type": "OwnDecoder", "none": None, "width": 2})
    assert "model.decoder.none must be an integer" in told(
        completed, "model.decoder", {"type": "OwnDecoder", "none": "a", "width": 2}
    )


@pytest.mark.usefixtures("own")
def test_arguments_that_a_class_passes_on_are_left_to_it(completed):
    assert not told(completed, "balancer", {"type": "OwnBalancer", "rates": {"warm": 0.5}, "more": object})
    assert "balancer.rates.warm must be a number" in told(
        completed, "balancer", {"type": "OwnBalancer", "rates": {"warm": "x"}}
    )


@pytest.mark.usefixtures("own")
def test_transforms_of_every_data_set_are_checked(completed):
    entry = {"type": "OwnDataset", "root": "x", "transforms": [{"type": "RandomCrop"}, {"type": "RandmCrop"}]}
    assert told(completed, "test_data.dataset", entry).startswith(
        "test_data.dataset.transforms.1.type: Unknown"
    )
    assert not told(completed, "test_data.dataset", {"type": "OwnDataset", "root": "x", "more": 3})


def test_a_class_that_takes_more_has_the_arguments_of_the_next_base():
    table = Registry("schedule", "PARAM_SCHEDULERS", ["mmengine.optim.scheduler"])
    assert {"power", "eta_min", "begin", "end"} <= set(table.options("PolyLR"))
    assert table.options("PolyLR")["power"].default == "1.0"
    assert Definition("mmengine.optim.scheduler.lr_scheduler", "PolyLR") == table.shipped("PolyLR")


@pytest.mark.parametrize("wrong", ["protocol = 5", "protocol = ['synthetic-scenes']"])
def test_a_protocol_of_another_kind_beside_tasks(write, wrong):
    told = mistakes(write(f"{BASE}\n{wrong}\ntasks = ['depth']\n"))
    assert any("protocol" in key + text for key, text in told.items())


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("training.micro_batches=3", "more parts than train_data.batch_size=2 has images; 2 is the most"),
        ("training.threads=100000", "an integer between 1 and 1024"),
        ("train_data.num_workers=3000", "an integer between 0 and 256"),
    ],
)
def test_numbers_that_would_have_no_effect_or_end_the_process(write, option, words):
    assert words in str(mistakes(write(BASE), option))


def test_a_part_that_cannot_be_made_is_named(write):
    """An error of Python in somebody's class, or in a library, told nothing of the config."""
    config = load_config(write(BASE), ["model.backbone.name=resnet10t", "model.backbone.channels=(8,16,24)"])
    with pytest.raises(BuildError, match="^backbone 'TimmBackbone' cannot be made .*layer4"):
        build_network(config["model"], protocol_of(config).tasks)
    twice = [{"type": "CrossStitch"}] * 2
    with pytest.raises(ValueError, match="^CrossStitch behind other adapters: .*not cut into blocks"):
        build_network({**load_config(write(BASE))["model"], "adapters": twice}, protocol_of(config).tasks)


def test_weights_that_are_all_zero():
    with pytest.raises(ValueError, match="all weights are 0"):
        BALANCERS.build({"type": "FixedWeights", "weights": {"a": 0, "b": 0}}, tasks=["a", "b"])


def test_the_first_mistake_of_a_key_counts():
    found = Mistakes()
    for text in ("first", "second"):
        with found.at("a"), found.at("b"):
            raise ValueError(text)
    assert [str(mistake) for mistake in found] == ["a.b: first"]
    assert found.below("a")
    assert not found.below("b")
    with pytest.raises(ValueError, match=r"^a\.b: first$"):
        found.end("config")


def test_nothing_found_raises_nothing():
    with gathering("config") as found:
        assert not found
