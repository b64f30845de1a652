"""Layouts of the released codes of SAK and PRISM: whole networks, or the backbones of their first stages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtvision.models.convert.rules import ConversionError, Drop, Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

_TASKS = {"sal": "saliency"}
_UNUSED = "its forward pass never reads it"

_HEADS = (
    Rule("heads.{t}.linears.{rest}", "heads.{t}.linears.{rest}"),
    Rule("heads.{t}.linear_fuse.{rest}", "heads.{t}.fuse.{rest}"),
    Rule("heads.{t}.last_conv.{rest}", "heads.{t}.logits.{rest}"),
)

_SAK = (
    Rule("backbone.vit.{rest}", "backbone.inner.model.{rest}"),
    Rule("backbone.tsap.{rest}", "backbone.paths.{rest}"),
    Rule("backbone.out_norms.{rest}", "backbone.out_norms.{rest}"),
    Rule("backbone.ts_aligners.{rest}", "backbone.aligners.{rest}"),
    Rule("backbone.mor.{i}_{t}.router.module.{rest}", "backbone.routers.{i}_{t}.layers.{rest}"),
    *_HEADS,
)

_TABLE = "backbone.task_condition_embeddings."
_EXPERT = re.compile(r"(.*\.moe_ffn_layer\.experts)\.(\d+)\.(fc[12]\.(?:weight|bias))")
_EXPERTS = re.compile(r"(.*\.moe_ffn_layer\.experts)\.(fc[12]\.(?:weight|bias))")


def _joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Experts of a layer as one tensor, and the vector of each task by its name."""
    import torch  # the layouts are data that a command's help reads

    result: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for key, tensor in state.items():
        found = _EXPERT.fullmatch(key)
        if found:
            stacks.setdefault(f"{found[1]}.{found[3]}", {})[int(found[2])] = tensor
        else:
            result[key] = tensor
    for name, parts in stacks.items():
        if sorted(parts) != list(range(len(parts))):
            raise ConversionError(f"prism: experts {sorted(parts)} of '{name}'; expected all from 0.")
        result[name] = torch.stack([parts[number] for number in range(len(parts))])
    table = result.get(f"{_TABLE}weight")
    if table is None or not len(table):
        return result
    tasks = list(dict.fromkeys(key.split(".")[1] for key in result if key.startswith("heads.")))
    if len(tasks) != len(table):
        raise ConversionError(
            f"prism: {len(table)} vectors of tasks and {len(tasks)} heads. Vectors are named by the order of "
            "heads, so the file must hold the heads of all tasks."
        )
    del result[f"{_TABLE}weight"]
    return result | {f"{_TABLE}{task}": row for task, row in zip(tasks, table, strict=True)}


def _split(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `_joined`; vectors of tasks in the order of heads."""
    import torch  # the layouts are data that a command's help reads

    result: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    for key, tensor in state.items():
        found = _EXPERTS.fullmatch(key)
        if found:
            result |= {f"{found[1]}.{number}.{found[2]}": item for number, item in enumerate(tensor)}
        elif key.startswith(_TABLE):
            rows[key.removeprefix(_TABLE)] = tensor
        else:
            result[key] = tensor
    if rows:
        heads = dict.fromkeys(key.split(".")[1] for key in state if key.startswith("heads."))
        result[f"{_TABLE}weight"] = torch.stack([rows[name] for name in heads or rows])
    return result


def _constants(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the released class holds and its forward pass does not read."""
    teachers = state.get("backbone.vfm_condition_embeddings.weight")
    if teachers is None:
        return {}
    tasks, constant = state.get(f"{_TABLE}weight", teachers[:0]), teachers.new_zeros
    layers = {key.partition("gate_linear")[0] for key in state if ".gate_linear." in key}
    weights = {"ortho_loss_weight": 0.01, "variance_loss_weight": 1.0}
    return {
        "backbone.task_composer_weights": constant(len(tasks), len(teachers)),
        "backbone.task_free_condition_embeddings.weight": constant(1, teachers.shape[1]),
        **{
            f"{layer}moe_ffn_layer.{name}": constant(()) + value
            for layer in sorted(layers)
            for name, value in weights.items()
        },
    }


_BLOCK, _HERE = "backbone.backbone.blocks.{i}.", "backbone.inner.model.blocks.{i}.mlp."
_MOE = _BLOCK + "moe_ffn_layer."
_PRISM = (
    Rule(_BLOCK + "standard_ffn.{rest}", _HERE + "dense.{rest}"),
    Rule(_BLOCK + "gate_linear.{rest}", _HERE + "gate.{rest}"),
    Rule(_MOE + "shared_expert.{rest}", _HERE + "shared.{rest}"),
    Rule(_MOE + "experts.fc1.{rest}", _HERE + "experts.first.{rest}"),
    Rule(_MOE + "experts.fc2.{rest}", _HERE + "experts.second.{rest}"),
    Rule(_MOE + "router.film_layer.to_gamma_beta.{rest}", _HERE + "router.film.{rest}"),
    Rule(_MOE + "router.W_gate_stage1.{rest}", _HERE + "router.influence.{rest}"),
    Rule(_MOE + "router.W_g_base.{rest}", _HERE + "router.score.{rest}"),
    Rule(_MOE + "router.W_noise.{rest}", _HERE + "router.deviation.{rest}"),
    Rule("backbone.backbone.norm.{rest}", "backbone.norm.{rest}"),
    Rule("backbone.backbone.{rest}", "backbone.inner.model.{rest}"),
    Rule(_TABLE + "{t}", "backbone.conditions.tasks.{t}"),
    Rule("backbone.vfm_condition_embeddings.weight", "backbone.conditions.teachers"),
    Rule("backbone.vfm_projection_heads.{i}_{j}.net.{k}.{rest}", "backbone.projections.{i}_{j}.{k}.{rest}"),
    Rule("backbone.vfm_projection_heads.{i}_{j}.{rest}", "backbone.projections.{i}_{j}.{rest}"),
    *_HEADS,
)

TAUGHT = {
    "sak": Layout(
        _SAK,
        tasks=_TASKS,
        aliases=((r"^(vit|tsap|out_norms|ts_aligners|mor)\.", r"backbone.\1."),),
    ),
    "prism": Layout(
        _PRISM,
        (
            Drop(r"backbone\.task_(composer_weights|free_condition_embeddings\.weight)", _UNUSED),
            Drop(r".*\.(ortho|variance)_loss_weight", _UNUSED),
            Drop(r"backbone\.task_condition_embeddings\.weight", "the first stage has no tasks"),
        ),
        _constants,
        aliases=(
            (r"^backbone\.(cls_token|pos_embed|patch_embed|blocks|norm)\b", r"backbone.backbone.\1"),
            (r"^(vfm|task)_", r"backbone.\1_"),
        ),
        tasks=_TASKS,
        join=_joined,
        split=_split,
    ),
}
"""Source name -> layout. Files of the first stages have no `backbone.` before their names."""
