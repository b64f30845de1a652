"""Weights in wrappers and behind prefixes of other code: found and said, or refused with what settles it."""

from __future__ import annotations

import argparse
import logging
import random
from collections import OrderedDict

import data_problems as problems
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mtvision.core.naming import UnknownNameError
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint, load_network_weights

PREFIXES = ["module.", "_orig_mod.", "network.", "model.", "net.", "_fsdp_wrapped_module.", "lit_module."]
INSERTED = ["_orig_mod.", "_fsdp_wrapped_module."]  # by compilers and sharding, anywhere in a name
WRAPPERS = [
    "model",
    "state_dict",
    "model_state_dict",
    "model_state",
    "net",
    "params",
    "ema",
    "weights",
    "any",
]
BESIDE = {
    "epoch": 3,
    "best": torch.tensor(0.5),
    "args": argparse.Namespace(lr=0.1, data="/data"),
    "optimizer": {
        "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}},
        "param_groups": [{"lr": 0.1, "params": [0]}],
    },
    "lr_scheduler": {"last_epoch": 3, "values": {"rate": torch.tensor(0.1)}},
    "scaler": {"scale": torch.tensor(65536.0)},
    "hyper_parameters": {"depth": 3, "names": ["a", "b"]},
    "rng_state": torch.zeros(8, dtype=torch.uint8),
}


def small_network() -> nn.Module:
    """Names as in our networks: `backbone.…`, `decoder.…`, `heads.depth.…`."""
    return nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
            "decoder": nn.Sequential(nn.Conv2d(4, 4, 1)),
            "heads": nn.ModuleDict({"depth": nn.Conv2d(4, 1, 1)}),
        }
    )


def renamed(state, prefix):
    return OrderedDict((prefix + name, item) for name, item in state.items())


def loads_into_another(path, source, caplog):
    """Whether a fresh network gets the weights of `source`; returns what was said."""
    target = small_network()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mtvision"):
        load_network_weights(target, load_checkpoint(path), path)
    for name, item in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], item), name
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("seed", range(40))
@problems.WRAPPED
def test_battery_of_wrapped_and_prefixed_checkpoints(seed, tmp_path, caplog):
    """Any nesting of up to three wrappers and prefixes, with whatever else training code keeps."""
    draw = random.Random(seed)
    network = small_network()
    chosen = draw.choices(PREFIXES, k=draw.randint(0, 3))
    prefix = "".join(chosen)
    content = renamed(network.state_dict(), prefix)
    if not set(chosen) <= set(INSERTED) and draw.random() < 0.3:
        content[draw.choice(["n_averaged", "criterion.weight", "metric.count"])] = torch.tensor(7)
    path = tmp_path / "file.pth"
    wrappers = draw.choices(WRAPPERS, k=draw.randint(0, 2))
    for wrapper in wrappers:
        content = {wrapper: content}
    if wrappers:
        content |= {key: BESIDE[key] for key in draw.sample(sorted(BESIDE), draw.randint(0, 4))}
        torch.save(content, path)
    elif draw.random() < 0.5:
        path = tmp_path / "file.safetensors"
        save_file({name: item.contiguous().clone() for name, item in content.items()}, path)
    else:
        torch.save(content, path)
    lines = loads_into_another(path, network, caplog)
    stripped = prefix.removeprefix("network.")
    assert len(lines) == bool(wrappers or stripped), lines
    for part in (*wrappers, *(item for item in stripped.split(".") if item)):
        assert part in lines[0]


@pytest.mark.parametrize("seed", range(40))
@problems.CHECKPOINT_FILES
def test_battery_of_mutated_checkpoints(seed, tmp_path):
    """One change of a wrapped checkpoint is refused, with the file and what was changed in the message."""
    draw = random.Random(100 + seed)
    network = small_network()
    state = {name: item.clone() for name, item in network.state_dict().items()}
    name = draw.choice([item for item in state if state[item].is_floating_point()])
    kind = draw.choice(["nan", "infinite", "missing", "shape", "integers", "complex", "stranger", "renamed"])
    expected = name
    if kind in ("nan", "infinite"):
        state[name].view(-1)[draw.randrange(state[name].numel())] = float("nan" if kind == "nan" else "-inf")
    elif kind == "missing":
        del state[name]
    elif kind == "shape":
        state[name] = torch.cat([state[name], state[name]])
    elif kind == "integers":
        state[name] = state[name].mul(100).to(torch.int8)
    elif kind == "complex":
        state[name] = state[name].to(torch.complex64)
    elif kind == "stranger":
        state[f"{name}_extra"] = state[name]
    else:
        state[f"decoder.old_{name.replace('.', '_')}"] = state.pop(name)
    prefix, path = draw.choice(PREFIXES), tmp_path / "odd.pth"
    torch.save({draw.choice(WRAPPERS): renamed(state, prefix)}, path)
    target = small_network()
    before = {key: item.clone() for key, item in target.state_dict().items()}
    with pytest.raises(CheckpointError, match="odd.pth") as caught:
        load_network_weights(target, load_checkpoint(path), path)
    assert expected in str(caught.value), kind
    assert all(torch.equal(target.state_dict()[key], item) for key, item in before.items())


@problems.WRAPPED
def test_a_compiled_part_inside_the_network(tmp_path, caplog):
    network = small_network()
    state = network.state_dict()
    inside = {name.replace("backbone.", "backbone._orig_mod."): item for name, item in state.items()}
    torch.save(inside, tmp_path / "w.pth")
    (line,) = loads_into_another(tmp_path / "w.pth", network, caplog)
    assert "_orig_mod." in line


@problems.WRAPPED
def test_an_averaged_model(tmp_path, caplog):
    network = small_network()
    averaged = torch.optim.swa_utils.AveragedModel(network)
    torch.save(averaged.state_dict(), tmp_path / "w.pth")
    (line,) = loads_into_another(tmp_path / "w.pth", network, caplog)
    assert line.endswith("'module.' removed from the names; left out: n_averaged.")


AMBIGUOUS = {
    "average beside weights": lambda a, b: {"state_dict": a, "state_dict_ema": b},
    "average in a module": lambda a, b: {"model": a, "ema": {"module": b, "decay": 0.99}},
    "student and teacher": lambda a, b: {"student": a, "teacher": b},
    "prefixes": lambda a, b: {"model": {**renamed(a, "student."), **renamed(b, "teacher.")}},
    "unknown names": lambda a, b: {"first": a, "second": b},
}
CHOICES = {
    "average beside weights": ("state_dict", "state_dict_ema"),
    "average in a module": ("model", "ema.module"),
    "student and teacher": ("student", "teacher"),
    "prefixes": ("student", "teacher"),
    "unknown names": ("first", "second"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
@problems.WRAPPED
def test_two_networks_in_a_file_are_refused_until_one_is_named(case, tmp_path, caplog):
    one, other = small_network(), small_network()
    path = tmp_path / "two.pth"
    torch.save(AMBIGUOUS[case](one.state_dict(), other.state_dict()), path)
    with pytest.raises(CheckpointError, match="two.pth") as caught:
        load_network_weights(small_network(), load_checkpoint(path), path)
    for choice in CHOICES[case]:
        assert choice in str(caught.value)
    assert f"{path}#" in str(caught.value)
    for network, choice in zip((one, other), CHOICES[case], strict=True):
        loads_into_another(f"{path}#{choice}", network, caplog)
    with pytest.raises(UnknownNameError, match="two.pth.*'teachr'"):
        load_checkpoint(f"{path}#teachr")


def test_a_hash_in_a_file_name_is_no_part(tmp_path, caplog):
    network = small_network()
    torch.save(network.state_dict(), tmp_path / "run#3.pth")
    assert loads_into_another(tmp_path / "run#3.pth", network, caplog) == []


def test_files_without_a_network(tmp_path):
    for content in ({"epoch": 3}, {"optimizer": BESIDE["optimizer"]}, {0: torch.zeros(1)}, {"model": {}}):
        torch.save(content, tmp_path / "none.pth")
        with pytest.raises(CheckpointError, match=r"none.pth: it holds no tensors.*its keys are"):
            load_checkpoint(tmp_path / "none.pth")
    torch.save({"encoder.weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"begin with encoder.weight \(1\); those of the network"):
        load_network_weights(small_network(), load_checkpoint(tmp_path / "other.pth"), "other.pth")


PARTS = "Join the tensors of all parts in one file with safetensors.torch.save_file"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "a.pth",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a.pth: a pointer of Git LFS",
        ),
        (
            "a.safetensors",
            b"version https://git-lfs.github.com/spec/v1\n",
            "a.safetensors: a pointer of Git LFS",
        ),
        ("a.pth", b"/annex/objects/SHA256E-s1--0.pth\n", "a.pth: a pointer of git-annex"),
        ("a.pt", b"\n<!DOCTYPE html><html>Quota exceeded</html>", "a.pt: a web page instead of the file"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "not a checkpoint: no pickle of tensors. Use"),
        ("model.safetensors.index.json", b"{}", f"the index of a checkpoint in parts. {PARTS}"),
    ],
)
def test_what_is_no_checkpoint_is_said_in_one_line(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as error:
        load_checkpoint(tmp_path / name)
    assert "weights_only" not in str(error.value)
    assert "\n" not in str(error.value)


def test_whole_modules_folders_and_single_shards_are_named(tmp_path):
    torch.save(small_network(), tmp_path / "module.pth")
    with pytest.raises(
        CheckpointError, match=r"could run code \(it names torch.nn.modules.[\w.]+\). Convert"
    ):
        load_checkpoint(tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match="it is a folder"):
        load_checkpoint(tmp_path)
    path = tmp_path / "model-00002-of-00003.safetensors"
    save_file({"decoder.0.weight": torch.zeros(4, 4, 1, 1)}, path)
    with pytest.raises(CheckpointError, match=f"The file is part 2 of 3. {PARTS}"):
        load_network_weights(small_network(), load_checkpoint(path), path)
