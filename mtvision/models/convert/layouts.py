"""The layouts we can read and write: `LAYOUTS` maps a source's name to its rules.

Ours is that of `mtvision.models.Network`: `backbone.`, `decoder.`, `heads.<task>.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtvision.models.convert.adapted import ADAPTED
from mtvision.models.convert.invpt import INVPT
from mtvision.models.convert.mlore import MLORE
from mtvision.models.convert.rules import Drop, Layout, Rule
from mtvision.models.convert.survey import SURVEY
from mtvision.models.convert.taskprompter import TASKPROMPTER, taskprompter_swin
from mtvision.models.convert.taught import TAUGHT

if TYPE_CHECKING:
    from torch import Tensor

_SAL = {"sal": "saliency"}


def merging_from_mmseg(x: Tensor) -> Tensor:
    """Last axis of a Swin's patch merging, from (channel, row, column) to timm's (column, row, channel).

    mmsegmentation unfolds a 2x2 patch channel by channel, the original Swin puts four corners side by side.
    """
    import torch  # the layouts are data that a command's help reads

    return torch.unflatten(x, -1, (-1, 2, 2)).movedim(-3, -1).transpose(-3, -2).flatten(-3)


def merging_to_mmseg(x: Tensor) -> Tensor:
    """Inverse of `merging_from_mmseg`."""
    import torch  # the layouts are data that a command's help reads

    return torch.unflatten(x, -1, (2, 2, -1)).transpose(-3, -2).movedim(-1, -3).flatten(-3)


def window_positions(table: Tensor) -> Tensor:
    """The buffer `relative_position_index` (window², window²) that belongs to a table ((2w-1)², heads)."""
    import torch  # the layouts are data that a command's help reads

    window = (round(len(table) ** 0.5) + 1) // 2
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    place: Tensor = (rows * (2 * window - 1) + columns).flatten()
    return place[:, None] - place[None, :] + place[-1]


def _window_buffers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    ending = "relative_position_bias_table"
    return {
        key.replace(ending, "relative_position_index"): window_positions(value)
        for key, value in state.items()
        if key.endswith(ending)
    }


def _squeeze(x: Tensor) -> Tensor:
    return x[..., 0, 0] if x.ndim == 4 else x


def _unsqueeze(x: Tensor) -> Tensor:
    return x[..., None, None]


_MODEL = "backbone.model."
_THERE, _HERE = "backbone.stages.{i}.blocks.{j}.", "backbone.model.layers.{i}.blocks.{j}."
_MERGING = {"forward": merging_from_mmseg, "backward": merging_to_mmseg}
_DOWN, _DOWN_HERE = "backbone.stages.{k}.downsample.", "backbone.model.layers.{k}.downsample."

_SWIN = (
    Rule("backbone.patch_embed.projection.{rest}", _MODEL + "patch_embed.proj.{rest}"),
    Rule("backbone.patch_embed.norm.{rest}", _MODEL + "patch_embed.norm.{rest}"),
    Rule(_THERE + "attn.w_msa.{rest}", _HERE + "attn.{rest}"),
    Rule(_THERE + "ffn.layers.0.0.{rest}", _HERE + "mlp.fc1.{rest}"),
    Rule(_THERE + "ffn.layers.1.{rest}", _HERE + "mlp.fc2.{rest}"),
    Rule(_THERE + "norm1.{rest}", _HERE + "norm1.{rest}"),
    Rule(_THERE + "norm2.{rest}", _HERE + "norm2.{rest}"),
    # timm merges at the start of a stage, mmsegmentation at the end of the one before.
    Rule(_DOWN + "norm.{rest}", _DOWN_HERE + "norm.{rest}", 1, **_MERGING),
    Rule(_DOWN + "reduction.{rest}", _DOWN_HERE + "reduction.{rest}", 1, **_MERGING),
    Rule("backbone.norm{i}.{rest}", "backbone.level_norms.{i}.{rest}"),
)
_SWIN_DROPS = (Drop(r".*\.relative_position_index", "a constant that is computed when the model is built"),)

_STAGE = "decoder.stages.{s}."

_MTMAMBA = (
    Rule("expand_layers.{t}_{s}.{rest}", _STAGE + "expand.{t}.{rest}"),
    Rule("concat_layers.{t}_{s}.{rest}", _STAGE + "reduce.{t}.{rest}"),
    Rule("block_3.{s}.norm_share.{rest}", _STAGE + "exchange.norm_share.{rest}"),
    Rule("block_3.{s}.op_share.{rest}", _STAGE + "exchange.op_share.{rest}"),
    Rule("block_3.{s}.norm.{t}.{rest}", _STAGE + "exchange.norm.{t}.{rest}"),
    Rule("block_3.{s}.op.{t}.{rest}", _STAGE + "exchange.op.{t}.{rest}"),
    Rule("block_3.{s}.in_proj.{t}.{rest}", _STAGE + "exchange.gate.{t}.{rest}"),
    Rule("block_3.{s}.out_proj.{t}.{rest}", _STAGE + "exchange.out_proj.{t}.{rest}"),
    Rule("block_{k}.{t}_{s}.{rest}", _STAGE + "blocks.{t}.{k}.{rest}", -1),
    Rule("final_expand.{t}.{rest}", "decoder.final.{t}.{rest}"),
    Rule("final_project.{t}.{rest}", "heads.{t}.logits.{rest}"),
)

_MTMAMBA_PLUS = (
    Rule("expand_layers.{t}_{s}.{rest}", _STAGE + "expand.{t}.{rest}"),
    Rule("concat_layers.{t}_{s}.weight", _STAGE + "reduce.{t}.weight", 0, _squeeze, _unsqueeze),
    Rule("concat_layers.{t}_{s}.bias", _STAGE + "reduce.{t}.bias"),
    Rule("block_stm.{t}_{s}.{k}.{rest}", _STAGE + "blocks.{t}.{k}.{rest}"),
    Rule("block_ctm.{s}.0.norm_share.{rest}", _STAGE + "exchange.norm_share.{rest}"),
    Rule("block_ctm.{s}.0.conv_share.{rest}", _STAGE + "exchange.conv_share.{rest}"),
    Rule("block_ctm.{s}.0.norm.{t}.{rest}", _STAGE + "exchange.norm.{t}.{rest}"),
    Rule("block_ctm.{s}.0.op.{t}.{rest}", _STAGE + "exchange.op.{t}.{rest}"),
    Rule("final_expand.{t}.{rest}", "decoder.final.{t}.{rest}"),
    Rule("final_project.{t}.{rest}", "heads.{t}.logits.{rest}"),
)

_BLOCK = "layers.{i}.blocks.{j}."
_VMAMBA = (
    Rule("patch_embed.{rest}", "backbone.patch_embed.{rest}"),
    # Some files keep the linear layers that act on maps as 1x1 convolutions.
    Rule(_BLOCK + "op.{t}_proj.weight", "backbone." + _BLOCK + "op.{t}_proj.weight", 0, _squeeze),
    Rule(_BLOCK + "mlp.fc{k}.weight", "backbone." + _BLOCK + "mlp.fc{k}.weight", 0, _squeeze),
    Rule("layers.{rest}", "backbone.layers.{rest}"),
    Rule("outnorm{i}.{rest}", "backbone.outnorm{i}.{rest}"),
)

_VIM = (
    Rule("cls_token", "backbone.cls_token"),
    Rule("pos_embed", "backbone.pos_embed"),
    Rule("patch_embed.{rest}", "backbone.patch_embed.{rest}"),
    Rule("layers.{rest}", "backbone.layers.{rest}"),
    Rule("norm_f.{rest}", "backbone.norm_f.{rest}"),
)

_NO_PREFIX = ((r"^backbone\.", ""),)
_CLASSIFIER = "the classifier of the pre-training"

LAYOUTS: dict[str, Layout] = {
    "mtmamba": Layout(_MTMAMBA + _SWIN, _SWIN_DROPS, _window_buffers, tasks=_SAL, prefix="module."),
    "mtmamba_plus": Layout(_MTMAMBA_PLUS + _SWIN, _SWIN_DROPS, _window_buffers, tasks=_SAL, prefix="module."),
    "mmseg_swin": Layout(
        _SWIN,
        (
            *_SWIN_DROPS,
            Drop(r"backbone\.(norm|head)\.(weight|bias)|(decode|auxiliary)_head\..*", _CLASSIFIER),
        ),
        _window_buffers,
        aliases=((r"^(?=(patch_embed|stages|norm\d?|head)\.)", "backbone."),),
        wrapper="state_dict",
    ),
    "vmamba": Layout(
        _VMAMBA,
        (Drop(r"classifier\..*|(decode|auxiliary)_head\..*", _CLASSIFIER),),
        aliases=(
            *_NO_PREFIX,
            (r"\.ln_1\.", ".norm."),
            (r"\.ln_2\.", ".norm2."),
            (r"\.self_attention\.", ".op."),
        ),
    ),
    "vim": Layout(
        _VIM,
        (Drop(r"(head|fc_norm)\..*|(decode|auxiliary)_head\..*|fpn\d\..*", "the head of its training"),),
        aliases=_NO_PREFIX,
    ),
    **SURVEY,
    **MLORE,
    **ADAPTED,
    **INVPT,
    **TASKPROMPTER,
    "taskprompter_swin": taskprompter_swin(_window_buffers),
    **TAUGHT,
}
"""Source name -> layout."""
