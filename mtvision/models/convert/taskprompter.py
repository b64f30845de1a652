"""Layouts of TaskPrompter's released code (Ye and Xu, ICLR 2023), on a ViT and on a Swin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from mtvision.models.convert.rules import Drop, Layout, Rule, with_first_row, without_first_row

if TYPE_CHECKING:
    from torch import Tensor

_MODEL = "backbone.inner.model."
_LEVEL = "decoder.levels.{i}."
_BLOCK = r"backbone\.blocks\.(\d+)\."
_DETECTION = "three-dimensional detection is not part of this suite; its prompt is kept"

_DECODER = (
    Rule("backbone.fea_decode_spa.{i}.{t}.0.{rest}", _LEVEL + "spatial.{t}.{rest}"),
    Rule("backbone.fea_decode_chan.{i}.{t}.0.{rest}", _LEVEL + "channel.{t}.{rest}"),
    Rule("backbone.fea_fuse.{i}.{t}.{rest}", _LEVEL + "fuse.{t}.{rest}"),
    Rule("backbone.ctr_attn_conv.{i}.{t}.{rest}", _LEVEL + "weigh.{t}.{rest}"),
    Rule("backbone.multi_scale_fuse.{t}.{rest}", "decoder.smooth.{t}.{rest}"),
    Rule("heads.{t}.mt_proj.{rest}", "heads.{t}.hidden.{rest}"),
    Rule("heads.{t}.linear_pred.{rest}", "heads.{t}.logits.{rest}"),
    Rule("backbone.task_prompts", "backbone.task_prompts"),
)


def _last_block(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The last block's way back to the prompts, as zeros: it learned nothing."""
    drawn = {
        int(match[1]): value
        for key, value in state.items()
        if (match := re.fullmatch(_BLOCK + r"attn\.token_trans\.weight", key))
    }
    if not drawn:
        return {}
    last = max(drawn)
    weight = drawn[last]
    return {
        f"backbone.blocks.{last}.attn.token_trans1.weight": weight.new_zeros(weight.T.shape),
        f"backbone.blocks.{last}.attn.token_trans1.bias": weight.new_zeros(weight[0].shape),
    }


def _mark_last(keys: Iterable[str]) -> dict[str, str]:
    """The last block's way back to the prompts, which nothing reads, under a name of its own."""
    found = {
        key: match for key in keys if (match := re.fullmatch(_BLOCK + r"attn\.token_trans1\.(\w+)", key))
    }
    last = max((int(match[1]) for match in found.values()), default=-1)
    return {
        key: f"backbone.unused.token_trans1.{match[2]}"
        for key, match in found.items()
        if int(match[1]) == last
    }


_VIT_BLOCK, _VIT_HERE = "backbone.blocks.{j}.", _MODEL + "blocks.{j}."
_VIT = (
    Rule(_VIT_BLOCK + "attn.token_trans.{rest}", _VIT_HERE + "to_map.{rest}"),
    Rule(_VIT_BLOCK + "attn.token_trans1.{rest}", _VIT_HERE + "to_prompt.{rest}"),
    Rule(_VIT_BLOCK + "{rest}", _VIT_HERE + "block.{rest}"),
    Rule("backbone.pos_embed", _MODEL + "pos_embed", 0, without_first_row, with_first_row),
    Rule("backbone.patch_embed.{rest}", _MODEL + "patch_embed.{rest}"),
    Rule("backbone.norm.{rest}", _MODEL + "norm.{rest}"),
)

_SWIN_BLOCK, _SWIN_HERE = "backbone.layers.{i}.blocks.{j}.", _MODEL + "layers.{i}.blocks.{j}."
_DOWN, _DOWN_HERE = "backbone.layers.{k}.downsample.", _MODEL + "layers.{k}.downsample."
_PARTS = {"chan_q": "query", "chan_kv": "key_value", "chan_proj": "mix"}
_PARTS |= {"token_trans": "to_channel", "token_trans1": "to_prompt"}
_DOWN_PARTS = {"process_chan_attn": "channels", "task_prompts_up": "prompts", "spa_attn_ds": "pixels"}
_SWIN = (
    *(
        Rule(f"{_SWIN_BLOCK}{theirs}.{{rest}}", f"{_SWIN_HERE}{ours}.{{rest}}")
        for theirs, ours in _PARTS.items()
    ),
    Rule(_SWIN_BLOCK + "{rest}", _SWIN_HERE + "block.{rest}"),
    # timm merges at the start of a stage, the original at the end of the one before.
    *(
        Rule(f"{_DOWN}{theirs}.{{rest}}", f"{_DOWN_HERE}{ours}.{{rest}}", 1)
        for theirs, ours in _DOWN_PARTS.items()
    ),
    Rule(_DOWN + "{rest}", _DOWN_HERE + "merging.{rest}", 1),
    Rule("backbone.patch_embed.{rest}", _MODEL + "patch_embed.{rest}"),
    Rule("backbone.norm.{rest}", "backbone.norm.{rest}"),
)


def _detection_branch(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The third task's convolutions as zeros, where the prompts hold a third row."""
    branch = re.compile(r"(backbone\.fea_\w+\.\d+\.)semseg(\..*)")
    tasks = {match[1] for key in state if (match := re.match(r"backbone\.fea_fuse\.\d+\.(\w+)\.", key))}
    prompts = state.get("backbone.task_prompts")
    if prompts is None or len(prompts) <= len(tasks):
        return {}
    return {
        f"{match[1]}3ddet{match[2]}": value.new_zeros(value.shape)
        for key, value in state.items()
        if (match := branch.fullmatch(key))
    }


TASKPROMPTER = {
    "taskprompter": Layout(
        _DECODER + _VIT,
        (Drop(r"backbone\.unused\..*", "nothing reads the prompts of the last block: its gradient is 0"),),
        _last_block,
        tasks={"sal": "saliency"},
        prefix="module.",
        resolve=_mark_last,
    )
}


def taskprompter_swin(rebuild: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]) -> Layout:
    """Layout of the Swin model; `rebuild` makes the position indices of windows.

    Shift masks (`attn_mask`) are not rebuilt: they depend on height and width of the map, of which the
    weights only hold the product. The authors' code makes them when the model is built.
    """
    constant = "a constant that is computed when the model is built"
    return Layout(
        _DECODER + _SWIN,
        (
            Drop(r".*\.(relative_position_index|attn_mask)", constant),
            Drop(r"(backbone\.fea_\w+\.\d+|heads)\.3ddet\..*", _DETECTION),
        ),
        lambda state: {**rebuild(state), **_detection_branch(state)},
        prefix="module.",
    )
