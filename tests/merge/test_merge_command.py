"""`mtvision merge`: parts by their roles, provenance, recalibration, and every refusal in one line."""

from __future__ import annotations

import pytest
import torch
from merge_files import TASKS, network_of, run, state_of, write

from mtvision.merge import merge
from mtvision.procedures.merging import parts_of
from mtvision.runtime.checkpoint import load_checkpoint


def test_roles_say_what_is_shared():
    parts = parts_of(network_of(*TASKS))
    assert {name for name, part in parts.items() if part == "shared"} == {
        name for name in parts if name.startswith("backbone.")
    }
    assert all(part == name.split(".")[1] for name, part in parts.items() if name.startswith("heads."))
    assert "decoder.decoders.depth.smooth.0.1.running_mean" in parts


def test_shared_parts_are_merged_and_the_others_taken(here, capsys):
    assert run(here, "--method", "ties", "--option", "scale=0.5", "density=0.3") == 0
    said = capsys.readouterr().out
    assert "semseg: 0.0" in said
    assert "cosine of depth and semseg: " in said
    merged, base = state_of(here), state_of("base.pth")
    parents = {task: state_of(f"{task}.pth") for task in TASKS}
    shared = [name for name in base if name.startswith("backbone.")]
    expected = merge(
        "ties",
        {name: base[name] for name in shared},
        {task: {name: state[name] for name in shared} for task, state in parents.items()},
        scale=0.5,
        density=0.3,
    )
    assert merged.keys() == base.keys()
    for name, item in merged.items():
        task = next((task for task in TASKS if f".{task}." in name), None)
        assert torch.equal(item, expected[name] if task is None else parents[task][name]), name
    network_of(*TASKS).load_state_dict(merged)


def test_provenance_is_in_the_checkpoint(here):
    assert run(here, "--method", "dare", "--option", "seed=3", "coefficients={'backbone.*': 0.2}") == 0
    meta = load_checkpoint(here)["meta"]
    assert meta["tasks"] == list(TASKS)
    assert "resnet10t" in meta["config"]
    made = meta["merge"]
    assert (made["method"], made["options"]) == ("dare", {"seed": 3, "coefficients": {"backbone.*": 0.2}})
    assert {len(item["sha256"]) for item in (made["base"], *made["parents"].values())} == {64}
    assert made["parents"]["depth"] | {"sha256": ""} == {
        "path": "depth.pth",
        "sha256": "",
        "iter": 7,
        "tasks": ["depth"],
    }
    assert made["recalibration"] is None
    assert [made["parts"][part]["from"] for part in ("shared", *TASKS)] == ["dare", "semseg.pth", "depth.pth"]
    assert sum(item["tensors"] for item in made["parts"].values()) == len(state_of(here))


def test_new_statistics_of_batch_norms(here, capsys):
    assert run(here, "--recalibrate", "4") == 0
    assert "batch norms with new statistics: " in capsys.readouterr().out
    fresh = state_of(here)
    assert load_checkpoint(here)["meta"]["merge"]["recalibration"]["images"] == 4
    assert run(here) == 0
    plain = state_of(here)
    changed = {name for name, item in plain.items() if not torch.equal(item, fresh[name])}
    assert changed
    assert {name.rpartition(".")[2] for name in changed} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


def test_the_network_of_one_task(here):
    assert run(here, "--method", "tall_masks", "--option", "task=depth", "threshold=0.0") == 0
    assert load_checkpoint(here)["meta"]["tasks"] == ["depth"]
    network_of("depth").load_state_dict(state_of(here))


def test_weights_of_the_config_and_safetensors(here, tmp_path):
    from safetensors.torch import save_file

    for name in ("base", *TASKS):
        save_file(state_of(f"{name}.pth"), tmp_path / f"{name}.safetensors")
    assert run(here) == 0
    expected = state_of(here)
    base, semseg, depth = (tmp_path / f"{name}.safetensors" for name in ("base", *TASKS))
    assert run(here, base=base, semseg=semseg, depth=depth) == 0
    assert all(torch.equal(item, expected[name]) for name, item in state_of(here).items())


def broken(tmp_path, name, change):
    state = state_of(f"{name}.pth")
    change(state)
    path = tmp_path / f"broken_{name}.pth"
    write(path, state, [name])
    return path


def nan_head(state):
    next(item for name, item in state.items() if name.startswith("heads.")).fill_(torch.nan)


def nan_backbone(state):
    next(iter(state.values())).fill_(torch.nan)


def no_head(state):
    for name in [name for name in state if name.startswith("heads.")]:
        del state[name]


def no_stem(state):
    del state["backbone.model.conv1.0.weight"]


def wide_stem(state):
    state["backbone.model.conv1.0.weight"] = torch.zeros(9, 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan_head, "heads.depth"),
        (nan_backbone, "backbone.model.conv1.0.weight: parent 'depth' has values that are NaN"),
        (no_head, "depth-specific tensors of the config's network are missing: heads.depth."),
        (no_stem, "shared tensors of the config's network are missing: backbone.model.conv1.0.weight"),
        (wide_stem, "backbone.model.conv1.0.weight has shape (9, 3, 3, 3)"),
    ],
)
def test_broken_parents_are_refused(here, tmp_path, capsys, change, message):
    assert run(here, depth=broken(tmp_path, "depth", change)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 2  # the second says how to see a traceback
    assert not here.exists()


def test_parents_of_another_base_are_refused_with_the_number(here, tmp_path, capsys):
    write(tmp_path / "other.pth", network_of("depth", seed=9).state_dict(), ["depth"])
    assert run(here, depth=tmp_path / "other.pth") == 2
    said = capsys.readouterr().err
    assert "parents do not share this base" in said
    assert "depth 1." in said
    assert run(here, "--limit", "9", depth=tmp_path / "other.pth") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "tie"], "Unknown merger 'tie'. Did you mean 'ties'?"),
        (["--method", "ties", "--option", "densty=1"], "Unknown ties argument 'densty'"),
        (["--method", "ties", "--option", "density=2"], "density"),
        (["--method", "tall_masks"], "missing argument task"),
        (["--option", "scale"], "--option: expected NAME=VALUE, got 'scale'"),
        (
            ["--option", "coefficients={'bakbone.*': 1}"],
            "'bakbone.*' matches no tensor. Did you mean 'backbone.*'",
        ),
        (["--cfg-options", "tasks=depth"], "Unknown task of --parents 'semseg'"),
        (["--cfg-options", "tasks=depth,semseg,edge"], "no parent has the task edge of the config"),
    ],
    ids=str,
)
def test_mistakes_of_the_command_line(here, capsys, options, message):
    assert run(here, *options) == 2
    assert message in capsys.readouterr().err


def test_a_parent_of_another_task(here, capsys):
    assert run(here, depth="semseg.pth") == 2
    assert "it has the tasks semseg, not depth" in capsys.readouterr().err


def test_a_file_that_is_not_there(here, capsys):
    assert run(here, depth="nowhere.pth") == 2
    assert "checkpoint nowhere.pth does not exist" in capsys.readouterr().err


MERGER = '''
"""A merger of a stranger."""

from mtvision.core.registry import MERGERS
from mtvision.merge import TaskVectors
from mtvision.merge.vectors import merge_tensors


@MERGERS.register_module()
def first_parent(base, parents, *, scale=1.0):
    """Everything of the first parent in the alphabet."""
    vectors = TaskVectors(base, parents)
    shares = vectors.of(next(vectors.weights)).new_zeros(len(vectors.tasks))
    return merge_tensors(vectors, lambda name, deltas: scale * deltas[0], lambda name: shares)
'''


def test_a_merger_of_ones_own(here, tmp_path):
    module = tmp_path / "mine.py"
    module.write_text(MERGER)
    assert run(here, "--plugin", str(module), "--method", "first_parent") == 0
    merged, parent = state_of(here), state_of("depth.pth")
    name = "backbone.model.conv1.0.weight"
    assert torch.equal(merged[name], parent[name])
