"""Layout of InvPT's released code (Ye and Xu, ECCV 2022) on a ViT."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mtvision.models.convert.rules import Drop, Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

ORDER = ("semseg", "depth", "human_parts", "sal", "normals", "edge")
"""The order of tasks in the family's released code."""

_DECODER, _INVPT = "multi_task_decoder.", "multi_task_decoder.invpt."
_STAGE, _HERE = _INVPT + "invpt_stages.{i}.", "decoder.stages.{i}."
_BLOCK, _ATTN = _STAGE + "blocks.0.", _STAGE + "blocks.0.attn."
_DEAD = "nothing reads it in the authors' code, so it never learned"


def _find_tasks(keys: Iterable[str]) -> list[str]:
    found = {match[1] for key in keys if (match := re.search(r"\.invpt\.mix_proj\.([a-z_]+)\.", key))}
    return [name for name in ORDER if name in found]


_NUMBERED = re.compile(r"(.*\.(?:patch_embed|conv_proj_q|redu_chan\.\d+)\.)(\d+)(\..*)")
_NAMED = re.compile(r"(.*\.(?:patch_embed|conv_proj_q|redu_chan\.\d+)\.)([a-z_]+)(\..*)")


def name_tasks(keys: Iterable[str]) -> dict[str, str]:
    """{official key with a task's number: the same with its name}."""
    keys = list(keys)
    tasks = _find_tasks(keys)
    found = {key: match for key in keys if key.startswith(_INVPT) and (match := _NUMBERED.fullmatch(key))}
    return {
        key: f"{match[1]}{tasks[int(match[2])]}{match[3]}"
        for key, match in found.items()
        if int(match[2]) < len(tasks)
    }


def number_tasks(keys: Iterable[str]) -> dict[str, str]:
    """Inverse of `name_tasks`."""
    keys = list(keys)
    tasks = _find_tasks(keys)
    found = {key: match for key in keys if key.startswith(_INVPT) and (match := _NAMED.fullmatch(key))}
    return {
        key: f"{match[1]}{tasks.index(match[2])}{match[3]}"
        for key, match in found.items()
        if match[2] in tasks
    }


def _dead(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the official model holds but does not use, as zeros, so that it loads strictly."""
    width = state.get(_INVPT + "invpt_stages.0.blocks.0.norm1.weight")
    mixed = state.get(_INVPT + "invpt_stages.1.blocks.0.attn.fuse_attn.weight")
    embedded = state.get(_DECODER + "scale_embed.1.weight")
    if width is None or mixed is None or embedded is None:
        return {}
    count = len(width)
    shapes: dict[str, tuple[int, ...]] = {
        _INVPT + "norm_mt.weight": (count,),
        _INVPT + "norm_mt.bias": (count,),
        _INVPT + "invpt_stages.0.blocks.0.attn.fuse_attn.weight": tuple(mixed.shape),
        _INVPT + "invpt_stages.0.blocks.0.attn.fuse_attn.bias": (mixed.shape[0],),
        _DECODER + "scale_embed.2.weight": (count, *embedded.shape[1:]),
        _DECODER + "scale_embed.2.bias": (count,),
    }
    for index in range(len(_find_tasks(state))):
        shapes[f"{_INVPT}redu_chan.0.{index}.weight"] = (count, count, 1, 1)
        shapes[f"{_INVPT}redu_chan.0.{index}.bias"] = (count,)
    return {key: width.new_zeros(shape) for key, shape in shapes.items()}


_RULES = (
    Rule(_DECODER + "preliminary_decoder.{t}.{i}.conv.{rest}", "decoder.preliminary.{t}.{i}.0.{rest}"),
    Rule(_DECODER + "preliminary_decoder.{t}.{i}.bn1.{rest}", "decoder.preliminary.{t}.{i}.1.{rest}"),
    Rule(_DECODER + "intermediate_head.{t}.{rest}", "decoder.predict.{t}.{rest}"),
    Rule(_DECODER + "scale_embed.1.{rest}", "decoder.skips.0.{rest}"),
    Rule(_DECODER + "scale_embed.0.{rest}", "decoder.skips.1.{rest}"),
    Rule(_INVPT + "mix_proj.{t}.0.{rest}", "decoder.mix.{t}.{rest}"),
    Rule(_INVPT + "norm_mts.{i}.{rest}", _HERE + "norm_tasks.{rest}"),
    Rule(_INVPT + "redu_chan.{i}.{t}.{rest}", _HERE + "out.{t}.{rest}"),
    Rule(_INVPT + "mt_proj.{t}.{rest}", "decoder.project.{t}.{rest}"),
    Rule(_STAGE + "patch_embed.{t}.proj.{k}.{rest}", _HERE + "up.{t}.{k}.{rest}", -1),
    Rule(_ATTN + "conv_proj_q.{t}.conv.{rest}", _HERE + "attn.query.{t}.0.{rest}"),
    Rule(_ATTN + "conv_proj_q.{t}.bn.{rest}", _HERE + "attn.query.{t}.1.{rest}"),
    Rule(_ATTN + "fuse_attn.{rest}", _HERE + "attn.fuse.{rest}"),
    *(
        Rule(f"{_ATTN}{name}.{{rest}}", f"{_HERE}attn.{name}.{{rest}}")
        for name in ("proj_q", "proj_k", "proj_v", "proj")
    ),
    *(Rule(f"{_BLOCK}{name}.{{rest}}", f"{_HERE}{name}.{{rest}}") for name in ("norm1", "norm2", "mlp")),
    Rule("heads.{t}.linear_pred.{rest}", "heads.{t}.logits.{rest}"),
    Rule("backbone.{rest}", "backbone.model.{rest}"),
)

INVPT = {
    "invpt": Layout(
        _RULES,
        (
            Drop(r"multi_task_decoder\.invpt\.(norm_mt|redu_chan\.0\..*)\.(weight|bias)", _DEAD),
            Drop(r"multi_task_decoder\.invpt\.invpt_stages\.0\.blocks\.0\.attn\.fuse_attn\..*", _DEAD),
            Drop(r"multi_task_decoder\.scale_embed\.2\..*", _DEAD),
        ),
        _dead,
        tasks={"sal": "saliency"},
        prefix="module.",
        resolve=name_tasks,
        unresolve=number_tasks,
    )
}
