"""Rules for the suite's decoders and streams in which tasks share layers; see `COMPOSITES`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast

from timm.layers.attention import Attention
from timm.models.swin_transformer import PatchMerging, WindowAttention
from torch import Tensor, nn

from mtvision.models.adapters.prompted_swin import PromptedSwin
from mtvision.models.adapters.prompted_vit import PromptedViT, PromptViTBlock
from mtvision.models.adapters.slimmable.attention import COMPOSITES, SlimSuite, become
from mtvision.models.adapters.slimmable.width import FIXED, Part, Segment, Slicing
from mtvision.models.adapters.streams import CrossStitchUnit
from mtvision.models.decoders.invpt import InvPTDecoder
from mtvision.models.decoders.invpt_stage import HEADS, TaskAttention
from mtvision.models.decoders.mlore import MLoREDecoder
from mtvision.models.decoders.mlore_block import ExpertBlock
from mtvision.models.decoders.mti_net import MTINetDecoder, Propagation
from mtvision.models.decoders.mtmamba import CrossTask
from mtvision.models.decoders.task_expert import MemorialExperts, TaskExpertDecoder
from mtvision.models.decoders.task_prompter import PromptedLevel
from mtvision.models.layers.gate import MapGate
from mtvision.models.layers.patch_expand import PatchExpand
from mtvision.models.layers.ss2d import SS2D

SHARED = Part("shared")
REFUSED: dict[type[nn.Module], str] = {
    PromptedSwin: "its prompts compare channels by weights of one size of map; a prompted ViT can be slimmed",
}
"""{class: why what it holds cannot be slimmed}."""
DECLARED = {
    Attention,
    WindowAttention,
    PatchMerging,
    PatchExpand,
    Propagation,
    TaskAttention,
    SS2D,
    PromptViTBlock,
}
"""Classes whose layouts inside are told by their rule, so that nothing is followed or refused there."""

Make = Callable[..., Slicing]


class SlimExpertBlock(SlimSuite, ExpertBlock):
    """MLoRE's block, whose experts are used by their weights."""

    def low_rank_experts(self) -> list[Any]:
        """Active weights of the shared experts."""
        items: Any = self.experts
        return [SimpleNamespace(down=_active(item.down), up=_active(item.up)) for item in items]


def _active(layer: Any) -> Any:
    """Weight and bias in force; of a layer that is not converted yet, its own."""
    if not hasattr(layer, "slicing"):
        return layer
    weight, bias, _ = layer.active(layer.slicing.arriving())
    return SimpleNamespace(weight=weight, bias=bias)


class SlimTaskExpert(SlimSuite, TaskExpertDecoder):
    """TaskExpert, whose memories start with the leading channels."""

    def _start(self, name: str, feature: Tensor) -> Tensor:
        return super()._start(name, feature)[:, : self._count(name)]

    def _count(self, name: str) -> int:
        control = self.slicing.control
        own = Slicing(control, Part("task", name), self.slicing.divisor)
        return own.written(self.out_channels[name])[0][1]

    def leading(self) -> Iterator[tuple[nn.Module, str, Tensor]]:
        """The learned memories."""
        for name in self.memory:
            yield self.memory, name, self.memory[name][: self._count(name)]


class SlimCrossStitch(SlimSuite, CrossStitchUnit):
    """Cross-Stitch unit, which takes the leading weights of every pair by itself."""

    def leading(self) -> Iterator[tuple[nn.Module, str, Tensor]]:
        """The weights of every pair of tasks."""
        rows: Any = self.weights
        for row in rows.values():
            for source, weight in row.items():
                yield row, source, weight[: self.slicing.written(len(weight))[0][1]]


class SlimSS2D(SlimSuite, SS2D):
    """Four selective scans of the leading inner channels, each with its own state."""

    def _inner(self) -> int:
        return self.slicing.written(int(self._full("dt_projs_bias").shape[1]))[0][1]

    def _full(self, name: str) -> Tensor:
        return cast(Tensor, self._parameters[name])

    def _by_channel(self, name: str) -> Tensor:
        """(4·E, ...) as its leading channels in each of the four directions."""
        full = self._full(name)
        return full.view(4, -1, *full.shape[1:])[:, : self._inner()].flatten(0, 1)

    @property
    def x_proj_weight(self) -> Tensor:  # type: ignore[override]
        """(4, R + 2N, e)."""
        return self._full("x_proj_weight")[..., : self._inner()]

    @property
    def dt_projs_weight(self) -> Tensor:  # type: ignore[override]
        """(4, e, R)."""
        return self._full("dt_projs_weight")[:, : self._inner()]

    @property
    def dt_projs_bias(self) -> Tensor:  # type: ignore[override]
        """(4, e)."""
        return self._full("dt_projs_bias")[:, : self._inner()]

    @property
    def A_logs(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        """(4·e, N)."""
        return self._by_channel("A_logs")

    @property
    def Ds(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        """(4·e,)."""
        return self._by_channel("Ds")

    def leading(self) -> Iterator[tuple[nn.Module, str, Tensor]]:
        """Everything that no layer holds."""
        for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"):
            yield self, name, getattr(self, name)


class SlimPromptedViT(SlimSuite, PromptedViT):
    """A ViT with prompts, which have the leading channels."""

    @property
    def task_prompts(self) -> Tensor:  # type: ignore[override]
        """(T, active channels)."""
        full = cast(Tensor, self._parameters["task_prompts"])
        return full[:, : self.slicing.written(int(full.shape[1]))[0][1]]

    def leading(self) -> Iterator[tuple[nn.Module, str, Tensor]]:
        """The prompts."""
        yield self, "task_prompts", self.task_prompts


def _gate(module: Any, make: Make, _: Part) -> dict[str, Slicing]:
    positions = {} if module.pool is None else {"pool": make(FIXED)}
    return {"scores": make(FIXED), **positions}


def _expert_block(module: Any, make: Make, _: Part) -> dict[str, Slicing]:
    width = module.options.width
    shared = make(SHARED)
    inner = (Segment(width, SHARED, shared.divisor),)
    result = {"shared": shared}
    for index, expert in enumerate(module.experts):
        rank = (Segment(expert.down.out_channels, FIXED),)
        result[f"experts.{index}.down"] = make(FIXED, inputs=inner)
        result[f"experts.{index}.up"] = make(SHARED, inputs=rank)
    for name in module.before:
        result |= {f"before.{name}": shared, f"own.{name}.down": make(FIXED), f"own.{name}.up": shared}
    become(module, SlimExpertBlock, shared)
    return result


def _mlore(module: Any, make: Make, _: Part) -> dict[str, Slicing]:
    return {f"levels.{name}.3": make(FIXED) for name in module.levels}


def _memorial_experts(module: Any, make: Make, _: Part) -> dict[str, Slicing]:
    return {f"read.{name}": make(SHARED) for name in module.read}


def _task_expert(module: Any, make: Make, _: Part) -> dict[str, Slicing]:
    become(module, SlimTaskExpert, make(SHARED))
    return {"memory": make(SHARED)} if len(module.memory) else {}


def _propagation(module: Any, make: Make, part: Part) -> dict[str, Slicing]:
    count = len(module.names)
    inputs = (Segment(module.reduce.conv1.in_channels // count, part, make(part).divisor),) * count
    result = {"mask.2": make(part, blocks=count)}
    for block in ("mask.0", "reduce"):
        for layer in ("conv1", "downsample.0"):
            if _has(module, f"{block}.{layer}"):
                result[f"{block}.{layer}"] = make(part, inputs=inputs)
    return result


def _has(module: nn.Module, path: str) -> bool:
    return path in dict(module.named_modules())


def _cross_stitch(module: Any, make: Make, part: Part) -> dict[str, Slicing]:
    become(module, SlimCrossStitch, make(part))
    return {f"weights.{name}": make(part) for name in module.weights}


def _task_attention(module: Any, make: Make, _: Part) -> dict[str, Slicing]:
    """Heads keep their leading channels."""
    heads = (Segment(module.proj.in_features // HEADS, SHARED, make(SHARED).divisor),) * HEADS
    result = {name: make(SHARED, blocks=HEADS) for name in ("proj_q", "proj_k", "proj_v")}
    result["proj"] = make(SHARED, inputs=heads)
    return result | ({} if module.fuse is None else {"fuse": make(FIXED)})


def _ss2d(module: Any, make: Make, part: Part) -> dict[str, Slicing]:
    become(module, SlimSS2D, make(part))
    return {"in_proj": make(part, blocks=2 if module.gate else 1)}


def _prompted_vit(module: Any, make: Make, part: Part) -> dict[str, Slicing]:
    become(module, SlimPromptedViT, make(part))
    return {}


def _prompt_block(_: Any, make: Make, __: Part) -> dict[str, Slicing]:
    """What compares channels writes one number per position."""
    return {"to_map": make(FIXED)}


COMPOSITES.update(
    {
        MapGate: _gate,
        ExpertBlock: _expert_block,
        MLoREDecoder: _mlore,
        MemorialExperts: _memorial_experts,
        TaskExpertDecoder: _task_expert,
        Propagation: _propagation,
        CrossStitchUnit: _cross_stitch,
        TaskAttention: _task_attention,
        SS2D: _ss2d,
        PromptedViT: _prompted_vit,
        PromptViTBlock: _prompt_block,
    }
)


Regroup = Callable[[Any, int], Iterable[tuple[str, Part]]]


def _mti_net_parts(module: Any, stages: int) -> Iterator[tuple[str, Part]]:
    """Scales that tasks mix have one width, the finest follows each task.

    The coarsest scale adds what it computes to the backbone's last map, so it is as wide as that.
    """
    last = len(module.channels) - 1
    for index in range(1, last + 1):
        part = SHARED if index < last else Part("stage", stages - 1)
        for path in (f"scales.{index}", f"propagation.{index - 1}", f"distillation.{index}"):
            yield path, part


def _cross_task_parts(_: Any, __: int) -> list[tuple[str, Part]]:
    """Scans of tasks are mixed with the one of all, so they are as wide."""
    return [("op", SHARED), ("gate", SHARED)]


def _invpt_parts(_: Any, __: int) -> list[tuple[str, Part]]:
    """Positions of all tasks attend to one another, so all are as wide."""
    return [("mix", SHARED), ("skips", SHARED), ("stages", SHARED)]


def _prompted_level_parts(module: Any, _: int) -> list[tuple[str, Part]]:
    """Fused maps of all tasks are added up where prompts reweight tasks."""
    names = module.fuse if len(module.weigh) else ()
    return [(f"fuse.{name}.{len(module.fuse[name]) - 1}", SHARED) for name in names]


REGROUP: dict[type[nn.Module], Regroup] = {
    MTINetDecoder: _mti_net_parts,
    CrossTask: _cross_task_parts,
    PromptedLevel: _prompted_level_parts,
    InvPTDecoder: _invpt_parts,
}
"""{class: rule}: what inside a module has another part than its path tells, because widths meet there.

A rule takes the module and the encoder's number of stages and gives (path below the module, part); paths
below that one follow.
"""
