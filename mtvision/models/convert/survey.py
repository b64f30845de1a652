"""Layouts of the survey's released code (Vandenhende et al., TPAMI 2021): HRNet and dilated ResNet models.

Backbones have torchvision's (ResNet) or the original (HRNet) names, which are timm's too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mtvision.models.convert.rules import Layout, Rule

_TASKS = {"sal": "saliency"}
_MODEL = "backbone.model."

_BACKBONE = (Rule("backbone.{rest}", _MODEL + "{rest}"),)


def _heads(theirs: str) -> tuple[Rule, ...]:
    """Rules of both heads that follow a backbone, of tasks called `<theirs>.{t}`."""
    head, ours = theirs + ".{t}.", "heads.{t}."
    return (
        Rule(head + "last_layer.{rest}", ours + "layers.{rest}"),
        # The fourth branch pools the image; its convolution follows a pooling layer, which has no weights.
        Rule(head + "0.convs.4.1.{rest}", ours + "branches.4.conv.{rest}"),
        Rule(head + "0.convs.4.2.{rest}", ours + "branches.4.norm.{rest}"),
        Rule(head + "0.convs.{i}.{j}.{rest}", ours + "branches.{i}.{j}.{rest}"),
        Rule(head + "0.project.{j}.{rest}", ours + "project.0.{j}.{rest}"),
        Rule(head + "1.{rest}", ours + "hidden.0.{rest}"),
        Rule(head + "2.{rest}", ours + "hidden.1.{rest}"),
        Rule(head + "4.{rest}", ours + "logits.{rest}"),
    )


def _distillation(theirs: str, ours: str) -> tuple[Rule, ...]:
    pair = ".self_attention.{t}.{u}."
    return (
        Rule(theirs + pair + "attention.0.{rest}", ours + ".messages.{t}.{u}.gate.{rest}"),
        Rule(theirs + pair + "conv.{rest}", ours + ".messages.{t}.{u}.conv.{rest}"),
    )


_HEAD = re.compile(r"heads\.(?P<t>[a-z_]+)\..+")


@dataclass(frozen=True)
class _Helpers:
    """Predictions of helper tasks: a part of the decoder in the authors' code, a head in ours.

    A helper is predicted early, but has no head in the authors' files.

    Args:
        rule: from the authors' early prediction to the last layer of a head, both in their names.
    """

    rule: Rule

    def resolve(self, keys: Iterable[str]) -> dict[str, str]:
        """Names of the helpers' predictions as if they were heads. A decoder without heads has no helpers."""
        keys = list(keys)
        final = {found["t"] for key in keys if (found := _HEAD.fullmatch(key))}
        early = {key: found for key in keys if (found := self.rule.from_official.fullmatch(key))}
        return {
            key: self.rule.ours.format(**found.groupdict())
            for key, found in early.items()
            if final and found["t"] not in final
        }

    def unresolve(self, keys: Iterable[str]) -> dict[str, str]:
        """Inverse of `resolve`: a head of one layer is a helper's if its task has no early prediction."""
        keys = list(keys)
        last = {key: found for key in keys if (found := self.rule.from_ours.fullmatch(key))}
        others = {found["t"] for key in keys if key not in last and (found := _HEAD.fullmatch(key))}
        early = {found["t"] for key in keys if (found := self.rule.from_official.fullmatch(key))}
        return {
            key: self.rule.official.format(**found.groupdict())
            for key, found in last.items()
            if found["t"] not in others | early
        }


_MTI_NET = (
    *_distillation("distillation_scale_{s}", "decoder.distillation.{s}"),
    Rule("scale_{s}.refinement.{t}.{rest}", "decoder.scales.{s}.refine.{t}.{rest}"),
    Rule("scale_{s}.decoders.{t}.{rest}", "decoder.scales.{s}.predict.{t}.{rest}"),
    Rule("fpm_scale_{k}.non_linear.{rest}", "decoder.propagation.{k}.mask.{rest}", -1),
    Rule("fpm_scale_{k}.dimensionality_reduction.{rest}", "decoder.propagation.{k}.reduce.{rest}", -1),
    Rule("fpm_scale_{k}.se.{t}.squeeze.{rest}", "decoder.propagation.{k}.excite.{t}.{rest}", -1),
    *_heads("heads"),
    *_BACKBONE,
)

_INITIAL = "initial_task_prediction_heads."
_PAD_NET = (
    Rule("backbone.0.{rest}", _MODEL + "{rest}"),
    Rule("backbone.1.last_layer.{rest}", "decoder.fuse.{rest}"),
    Rule(_INITIAL + "layers.{t}.{rest}", "decoder.initial.{t}.{rest}"),
    Rule(_INITIAL + "conv_out.{t}.{rest}", "decoder.predict.{t}.{rest}"),
    *_distillation("multi_modal_distillation", "decoder.distillation"),
    Rule("heads.{t}.2.{rest}", "heads.{t}.logits.{rest}"),
    Rule("heads.{t}.{i}.{rest}", "heads.{t}.blocks.{i}.{rest}"),
)

_MTAN = (
    Rule("attention_{k}.{t}.{rest}", "backbone.attention.{k}.{t}.{rest}", -1),
    Rule("refine_{k}.0.{rest}", "backbone.refine.{k}.{rest}", -1),
    *_heads("heads"),
    Rule("backbone.{rest}", "backbone.shared.model.{rest}"),
)

_STREAM = (Rule("backbone.{t}.{rest}", "backbone.streams.{t}.model.{rest}"), *_heads("heads"))

_CROSS_STITCH = (
    Rule(
        "cross_stitch.layer{k}.cross_stitch_unit.{t}.{u}.param",
        "backbone.fusions.level{k}.weights.{t}.{u}",
        -1,
    ),
    *_STREAM,
)

_NDDR = (
    Rule("nddr.conv.layer.{t}.{rest}", "backbone.fusions.model_maxpool.reduce.{t}.{rest}"),
    Rule("nddr.layer1_without_conv.layer.{t}.{rest}", "backbone.fusions.level0.reduce.{t}.{rest}"),
    Rule("nddr.layer{k}.layer.{t}.{rest}", "backbone.fusions.level{k}.reduce.{t}.{rest}", -1),
    *_STREAM,
)


_MTI_HELPERS = _Helpers(Rule("scale_0.decoders.{t}.{rest}", "heads.{t}.4.{rest}"))
_PAD_HELPERS = _Helpers(Rule(_INITIAL + "conv_out.{t}.{rest}", "heads.{t}.2.{rest}"))


def _layout(rules: tuple[Rule, ...], helpers: _Helpers | None = None) -> Layout:
    if helpers is None:
        return Layout(rules, tasks=_TASKS)
    return Layout(rules, tasks=_TASKS, resolve=helpers.resolve, unresolve=helpers.unresolve)


SURVEY: dict[str, Layout] = {
    "survey_multi_decoder": _layout((*_heads("decoders"), *_BACKBONE)),
    "survey_cross_stitch": _layout(_CROSS_STITCH),
    "survey_nddr": _layout(_NDDR),
    "survey_mtan": _layout(_MTAN),
    "survey_pad_net": _layout(_PAD_NET, _PAD_HELPERS),
    "survey_mti_net": _layout(_MTI_NET, _MTI_HELPERS),
}
"""Source name -> layout."""
