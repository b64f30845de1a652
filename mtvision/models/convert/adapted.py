"""Layouts of released backbones with adapters: M3ViT's experts, MTLoRA's updates and VTAGML.

Their decoders are none of this suite, so that files become backbones; `training.load_partly` takes these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mtvision.models.convert.invpt import ORDER
from mtvision.models.convert.rules import Drop, Layout, Rule

_TASKS = {"sal": "saliency"}
_MODEL = "backbone.model."
_OTHER_DECODER = "decoders of this code are not part of this suite"
_CONSTANT = "a constant that is computed when the model is built"

_NUMBERED = re.compile(r"(.*\.mlp\.gate\.)(\d+)(\.w_gate)")
_NAMED = re.compile(r"(.*\.mlp\.gate\.)([a-z_]+)(\.w_gate)")


def _gates_by_name(keys: Iterable[str]) -> dict[str, str]:
    """Gates are numbered in the order of the decoders, which are named; others get a name without a rule."""
    keys = list(keys)
    tasks = list(dict.fromkeys(key.split(".")[1] for key in keys if key.startswith("decoders.")))
    found = {key: match for key in keys if (match := _NUMBERED.fullmatch(key))}
    return {
        key: f"{match[1]}{tasks[int(match[2])]}{match[3]}" if int(match[2]) < len(tasks) else "unnamed"
        for key, match in found.items()
    }


def _gates_by_number(keys: Iterable[str]) -> dict[str, str]:
    """Inverse of `_gates_by_name`, in the order of tasks of the family's code."""
    found = {key: match for key in keys if (match := _NAMED.fullmatch(key))}
    tasks = sorted({match[2] for match in found.values()}, key=ORDER.index)
    return {key: f"{match[1]}{tasks.index(match[2])}{match[3]}" for key, match in found.items()}


_MLP, _MLP_HERE = "backbone.blocks.{i}.mlp.", _MODEL + "blocks.{i}.mlp."
_M3VIT = (
    Rule(_MLP + "experts.htoh4.{rest}", _MLP_HERE + "experts.first.{rest}"),
    Rule(_MLP + "experts.h4toh.{rest}", _MLP_HERE + "experts.second.{rest}"),
    Rule(_MLP + "gate.w_gate", _MLP_HERE + "router.gate"),
    Rule(_MLP + "gate.{t}.w_gate", _MLP_HERE + "router.gate.{t}"),
    *(
        Rule(f"backbone.{part}", f"{_MODEL}{part}")
        for part in ("cls_token", "pos_embed", "patch_embed.{rest}", "blocks.{i}.{rest}")
    ),
)

_BLOCK, _BLOCK_HERE = "backbone.layers.{i}.blocks.{j}.", _MODEL + "layers.{i}.blocks.{j}."
_DOWN, _DOWN_HERE = "backbone.layers.{k}.downsample.", _MODEL + "layers.{k}.downsample."


def _updates(theirs: str, ours: str, shift: int = 0) -> tuple[Rule, ...]:
    """One linear layer with its updates; a layer without has its own names."""
    return (
        Rule(theirs + "lora_shared_{rest}", ours + "shared.{rest}", shift),
        Rule(theirs + "lora_tasks_A.{t}", ours + "own.{t}.A", shift),
        Rule(theirs + "lora_tasks_B.{t}", ours + "own.{t}.B", shift),
        Rule(theirs + "lora_norm.{rest}", ours + "add.{rest}", shift),
        Rule(theirs + "linear.{rest}", ours + "{rest}", shift),  # the last one: all fits it on the way back
    )


_LAYERS = ("attn.qkv.", "attn.proj.", "mlp.fc1.", "mlp.fc2.")
_MTLORA = (
    *(rule for name in _LAYERS for rule in _updates(_BLOCK + name, _BLOCK_HERE + name)),
    *_updates(_DOWN + "reduction.", _DOWN_HERE + "reduction.", 1),
    Rule(_BLOCK + "{rest}", _BLOCK_HERE + "{rest}"),
    Rule(_DOWN + "{rest}", _DOWN_HERE + "{rest}", 1),  # timm merges patches at the start of a stage
    Rule("backbone.patch_embed.{rest}", _MODEL + "patch_embed.{rest}"),
)

_STREAMED, _PLAIN = "backbone.inner.model.", "plain:"
_STAGE, _STAGE_HERE = "layers.{i}.blocks.{j}.", _STREAMED + "layers.{i}.blocks.{j}."
_MERGING, _MERGING_HERE = "layers.{k}.downsample", _STREAMED + "layers.{k}.downsample."


def _without_stream(keys: Iterable[str]) -> dict[str, str]:
    """Mark the keys of a network without bottlenecks, whose backbone is that of timm here."""
    keys = list(keys)
    if any(".adapter_layer." in key for key in keys):
        return {}
    return {key: _PLAIN + key for key in keys if not key.startswith("task_type_embeddings.")}


_VTAGML = (
    Rule("task_type_embeddings.weight", "backbone.task_type_embeddings.weight"),
    Rule("norm.{rest}", "backbone.norm.{rest}"),
    Rule("patch_embed.{rest}", _STREAMED + "patch_embed.{rest}"),
    Rule("layers.{i}.adapter_layer.{j}.{rest}", _STAGE_HERE + "bottleneck.{rest}"),
    Rule(_STAGE + "{rest}", _STAGE_HERE + "block.{rest}"),
    Rule(_MERGING + "_bottleneck.{rest}", _MERGING_HERE + "own.{rest}", 1),
    Rule(_MERGING + ".{rest}", _MERGING_HERE + "block.{rest}", 1),
    Rule(_PLAIN + "patch_embed.{rest}", _MODEL + "patch_embed.{rest}"),
    Rule(_PLAIN + _STAGE + "{rest}", _MODEL + "layers.{i}.blocks.{j}.{rest}"),
    Rule(_PLAIN + _MERGING + ".{rest}", _MODEL + "layers.{k}.downsample.{rest}", 1),
)

ADAPTED = {
    "m3vit": Layout(
        _M3VIT,
        (Drop(r"(decoders|tam_model\d)\..*", _OTHER_DECODER),),
        tasks=_TASKS,
        wrapper="state_dict",
        prefix="module.",
        resolve=_gates_by_name,
        unresolve=_gates_by_number,
    ),
    "mtlora": Layout(
        _MTLORA,
        (
            Drop(r".*\.(relative_position_index|attn_mask)", _CONSTANT),
            Drop(r"(decoders|downsampler)\..*", _OTHER_DECODER),
            Drop(r"backbone\.(norm|head)\..*", "levels are read before it"),
        ),
        tasks=_TASKS,
    ),
    "vtagml": Layout(
        _VTAGML,
        (
            Drop(rf"({_PLAIN})?.*\.(relative_position_index|attn_mask)", _CONSTANT),
            Drop(rf"({_PLAIN})?decoder_layers_.*", _OTHER_DECODER),
            Drop(rf"{_PLAIN}(norm|layers\.\d+\.downsample_bottleneck)\..*", "there is no side stream"),
        ),
        wrapper="model_state_dict",
        resolve=_without_stream,
        unresolve=lambda keys: {key: key.removeprefix(_PLAIN) for key in keys},
    ),
}
"""Source name -> layout."""
