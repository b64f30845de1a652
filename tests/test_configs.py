"""Every config file is understood: its data can be batched, its dump read back.

tests/cli/test_validate.py builds all networks.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from sampling import sampled

from mtvision.core.sample import SampleKey, collate
from mtvision.engine.optimization.optimizer import build_optimizer
from mtvision.engine.optimization.schedule import build_schedule
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.models.factory import build_network
from mtvision.protocols import (
    PROTOCOLS,
    Protocol,
    bsds_sod,
    camvid,
    cityscapes,
    mosd,
    mtan,
    nyudv2,
    pascal_context,
    synthetic,
)
from mtvision.recipe.config import load_config
from mtvision.recipe.data import build_dataset
from mtvision.recipe.sections import DATA_SECTIONS
from mtvision.recipe.settings import protocol_of, to_plain_data

ROOT = Path(__file__).parents[1] / "configs"
BASES = sorted((ROOT / "_base_" / "datasets").glob("*.py"))
SCHEDULES = sorted((ROOT / "_base_" / "schedules").glob("*.py"))
LEAVES = sorted(path for path in ROOT.rglob("*.py") if "_base_" not in path.parts)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def load_miniature():
    spec = importlib.util.spec_from_file_location(
        "miniature_of_configs", Path(__file__).parent / "data/miniature.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """{root that the configs name: miniature in the same layout}."""
    folder, miniature = tmp_path_factory.mktemp("data"), load_miniature()
    return {
        "data/NYUDv2": miniature.nyud(folder / "n", size=(35, 46)),
        "data/NYUD_MT": miniature.nyud(folder / "s", packaging="survey", size=(35, 46)),
        "data/PASCALContext": miniature.pascal(folder / "p"),
        "data/cityscapes": miniature.cityscapes(folder / "c"),
        "data/nyuv2_mtan": miniature.mtan(folder / "m", size=(288, 384), count=3),
        "data/cityscapes_mtan": miniature.mtan(folder / "mc", kind="cityscapes", count=3),
        "data/mosd": miniature.mosd(folder / "mosd"),
        "data/bsds_sod": miniature.bsds_sod(folder / "bsds"),
        "data/camvid": miniature.camvid(folder / "camvid"),
    }


@pytest.fixture(scope="module")
def network():
    model = {
        "backbone": {"type": "TimmBackbone", "name": "resnet10t"},
        "decoder": {"type": "ParallelDecoder", "width": 4},
        "head": {"type": "ConvHead"},
    }
    return build_network(model, PROTOCOLS["nyud-survey"].tasks)


@pytest.mark.parametrize("path", sampled(LEAVES), ids=relative)
def test_dump_reads_back(path, tmp_path):
    config = load_config(path)
    text = config.text
    assert "read_base" not in text
    copy = tmp_path / "copy.py"
    copy.write_text(text)
    again = load_config(copy)
    assert dict(again) == dict(config)
    assert again.text == text


@pytest.mark.parametrize("path", LEAVES, ids=relative)
def test_header_says_how_and_what(path):
    """The command names the file itself, and the header says what was published and what we measured."""
    header = re.sub(r"\\+\n\s*", "", path.read_text().split('"""')[1])  # long commands go on in the next line
    assert re.search(rf"tools/(train|search).py configs/{re.escape(relative(path))}", header)
    assert re.search(r"published|paper", header, re.IGNORECASE)
    assert "Ours" in header
    gpus = re.search(r"_(\d+)xb(\d+)_", path.name)
    config = load_config(path)
    assert int(gpus.group(2)) == config["train_data"]["batch_size"]
    launched = re.search(r"nproc_per_node=(\d+)", header)
    assert int(gpus.group(1)) == int(launched.group(1) if launched else 1)


@pytest.mark.parametrize("path", BASES + sampled(LEAVES), ids=relative)
def test_one_batch_of_every_section(path, roots):
    config = load_config(path)
    protocol = protocol_of(config)
    for section in DATA_SECTIONS:
        if not config[section]:
            assert section == "test_data"  # falls back to val_data
            continue
        given = to_plain_data(config[section])["dataset"]
        if given["type"] == "FolderDataset" or given.get("root") not in roots:
            pytest.skip("rendered or own data, tested elsewhere")
        given |= {"root": str(roots[given["root"]]), "check": False}
        dataset = build_dataset(section, {"dataset": given}, protocol, seed=0)
        count = min(config[section]["batch_size"], 2, len(dataset))
        batch = collate([dataset[SampleKey(0, index)] for index in range(count)])
        assert len(batch) == count
        assert sorted(batch.labels) == sorted(protocol.task_names)
        for name, label in batch.labels.items():
            values = protocol.task(name).label == "values"
            assert label.dtype == (torch.float32 if values else torch.int64)
        assert batch.image.isfinite().all()


@pytest.mark.parametrize("path", BASES, ids=relative)
def test_one_task_alone_has_labels_of_it_alone(path, roots):
    config = load_config(path)
    for name in protocol_of(config).task_names:
        alone = config.with_options({"tasks": [name]})
        given = to_plain_data(alone["train_data"])["dataset"]
        given |= (
            {"root": str(roots[given["root"]]), "check": False} if "root" in given else {"cache_dir": None}
        )
        dataset = build_dataset("train_data", {"dataset": given}, protocol_of(alone), seed=0)
        assert list(dataset[0].labels) == [name]


def test_sizes_that_networks_see(roots):
    """Training size of each data set's protocol variant, as the papers state it."""
    expected = {
        "nyud_invpt": (448, 576), "nyud_atrc": (425, 560), "nyud_survey": (480, 640),
        "pascal_invpt": (512, 512),
        "pascal_survey": (512, 512), "pascal_mtlora": (448, 448), "cityscapes_mtmamba": (512, 1024),
        "nyuv2_mtan": (288, 384), "nyuv2_autolambda": (288, 384),
    }  # fmt: skip
    for name, size in expected.items():
        config = load_config(ROOT / "_base_" / "datasets" / f"{name}.py")
        given = to_plain_data(config["train_data"]["dataset"])
        given |= {"root": str(roots[given["root"]]), "check": False}
        dataset = build_dataset("train_data", {"dataset": given}, protocol_of(config), seed=0)
        assert dataset[0].image.shape[1:] == size, name


def test_every_published_protocol_has_a_base():
    named = {load_config(path)["protocol"] for path in BASES}
    modules = (bsds_sod, camvid, cityscapes, mosd, mtan, nyudv2, pascal_context, synthetic)
    published = {
        item.id for module in modules for item in vars(module).values() if isinstance(item, Protocol)
    }
    assert named == published


def rates(path, network, steps):
    """Learning rate of the chosen optimizer steps."""
    config = load_config(path)
    settings = config["training"]
    optimizer = build_optimizer(network, torch.nn.Identity(), to_plain_data(config["optimizer"]))
    wrapper = PrecisionOptimWrapper(optimizer)
    schedulers = build_schedule(config["schedule"], settings["iterations"], wrapper)
    found = {}
    for step in range(max(steps) + 1):
        if step in steps:
            found[step] = optimizer.param_groups[0]["lr"]
        for scheduler in schedulers:
            scheduler.step()
    return [found[step] for step in steps]


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("path", SCHEDULES, ids=relative)
def test_schedules_start(path, network):
    config = load_config(path)
    rate, second = rates(path, network, [0, 1])
    warm = [item for item in config["schedule"] or [] if item["type"] == "LinearLR"]
    factor = warm[0]["start_factor"] if warm else 1.0
    assert rate == pytest.approx(config["optimizer"]["lr"] * factor)
    assert (second > rate) == bool(warm)


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("invpt_40k", {0: 2e-5, 20_000: 2e-5 * 0.5**0.9, 39_999: 2e-5 * (1 / 40_000) ** 0.9}),
        ("mtan_nyuv2_200ep", {39_749: 1e-4, 39_750: 5e-5, 79_499: 5e-5}),
        ("mtlora_300ep", {0: 5e-7, 3120: 3.125e-5, 46_799: 5e-6}),
        ("pgt_nyud_500ep", {0: 1.25e-7, 495: 1e-4, 24_998: 0.5e-4}),
    ],
)
def test_rates_of_published_schedules(name, expected, network):
    found = rates(ROOT / "_base_" / "schedules" / f"{name}.py", network, list(expected))
    assert found == pytest.approx(list(expected.values()), rel=1e-3)
