"""Decoders, backbones and adapters that each break one property."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from mtvision.core.context import current_context
from mtvision.core.output import Auxiliary, DecoderOutput
from mtvision.core.pyramid import Pyramid
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.decoders.decoder import Decoder
from mtvision.testing.inputs import ToyBackbone


class Growing(torch.autograd.Function):
    """The map itself, whose gradient grows with every backward pass."""

    @staticmethod
    def forward(ctx, x, passes):
        ctx.passes = passes
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.passes.append(None)
        return gradient * len(ctx.passes), None


class Twist(nn.Module):
    """A map with one mistake in it."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode
        self.hidden = float(torch.rand(())) if mode == "hidden" else 1.0  # is not in the state dict
        self.passes = []
        if mode == "idle":
            self.idle = nn.Parameter(torch.ones(3))
        if mode == "closure":
            self.closure = lambda x: x  # cannot be pickled

    def forward(self, x):
        if self.mode == "branch" and float(x.mean()) > 0:  # a value decides what is computed
            return 2 * x
        wrong = {
            "batch": lambda: x * len(x),
            "mixing": lambda: x + x.mean(dim=0, keepdim=True),
            "rough": lambda: (x * 1e-3 + 300) * 1e3 - 3e5,
            "format": lambda: x if x.is_contiguous() else 2 * x,
            "random": lambda: x + torch.rand(()),
            "even": lambda: x.reshape(*x.shape[:3], x.shape[3] // 2, 2).flatten(3),
            "double": lambda: 2 * x,
            "growing": lambda: Growing.apply(x, self.passes),
            "meta": lambda: x if x.is_meta else x @ torch.eye(x.shape[-1]),
            "context": lambda: x if current_context().tasks is None else 2 * x,
        }
        return wrong.get(self.mode, lambda: x * self.hidden)()


COMMON = {  # what networks of every kind promise: {property: mistake}
    "batch_of_one": "batch",
    "odd_sizes": "even",
    "samples_are_independent": "mixing",
    "bfloat16_is_close": "rough",
    "channels_last_is_equal": "format",
    "gradients_reach_every_parameter": "idle",
    "evaluation_is_deterministic": "random",
    "copies_are_equal": "closure",
    "exportable": "branch",
}


class GoodDecoder(Decoder):
    """A convolution per task on the finest map."""

    def __init__(self, *, channels, strides, tasks, mode=""):
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        self.project = nn.ModuleDict({task.name: nn.Conv2d(channels[0], 4, 1) for task in tasks})
        self.twist = Twist(mode)
        self.out_channels = dict.fromkeys(self.project, 4)

    def feature(self, name, pyramid):
        return self.twist(self.project[name](pyramid.for_task(name).maps[0]))

    def forward(self, pyramid, tasks=None):
        return DecoderOutput({task.name: self.feature(task.name, pyramid) for task in self.asked(tasks)})


class BreaksTheGraph(GoodDecoder):
    def feature(self, name, pyramid):
        torch._dynamo.graph_break()
        return super().feature(name, pyramid)


class FixesTheSize(GoodDecoder):
    def feature(self, name, pyramid):
        feature = super().feature(name, pyramid)
        return feature.reshape(*feature.shape[:2], int(feature.shape[2]), -1)


class WrongChannels(GoodDecoder):
    def __init__(self, **options):
        super().__init__(**options)
        self.out_channels = dict.fromkeys(self.project, 5)


class CountsTheTasks(GoodDecoder):
    def forward(self, pyramid, tasks=None):
        features = super().forward(pyramid, tasks).features
        return DecoderOutput({name: item / len(features) for name, item in features.items()})


class TakesAnyName(GoodDecoder):
    def forward(self, pyramid, tasks=None):
        names = [name for name in tasks or self.project if name in self.project]
        return DecoderOutput({name: self.feature(name, pyramid) for name in names})


class ReadsTheFirstPyramid(GoodDecoder):
    def feature(self, name, pyramid):
        return self.project[name](pyramid.maps[0])


class AlwaysSupervises(GoodDecoder):
    def forward(self, pyramid, tasks=None):
        features = super().forward(pyramid, tasks).features
        return DecoderOutput(features, [Auxiliary("depth", features["depth"][:, :1])])


DECODERS = {name: partial(GoodDecoder, mode=mode) for name, mode in COMMON.items()} | {
    "compiles_whole": BreaksTheGraph,
    "exportable_at_any_size": FixesTheSize,
    "out_channels_are_true": WrongChannels,
    "subset_equals_whole": CountsTheTasks,
    "unknown_task_is_refused": TakesAnyName,
    "task_pyramids_are_read": ReadsTheFirstPyramid,
    "supervision_only_in_training": AlwaysSupervises,
    "state_round_trip": partial(GoodDecoder, mode="hidden"),
}


class TwistedToy(ToyBackbone):
    """The toy backbone with a mistake behind its stem."""

    def __init__(self, mode=""):
        super().__init__()
        self.twist = Twist(mode)

    def stem(self, image):
        state = super().stem(image)
        return self.twist(state) if "twist" in self._modules else state  # not yet when it is measured


class WrongStrides(ToyBackbone):
    def __init__(self):
        super().__init__()
        self.strides = (4, 8, 16, 64)


class CutsTheBorder(ToyBackbone):
    def stem(self, image):
        return super().stem(image[..., : image.shape[-2] // 4 * 4, : image.shape[-1] // 4 * 4])


class PadsAbove(ToyBackbone):
    size_multiple = 32

    def stem(self, image):
        bottom, right = (-side % 32 for side in image.shape[-2:])
        return super().stem(F.pad(image, (right, 0, bottom, 0)))


class OtherForward(ToyBackbone):
    def levels(self, image):
        return [2 * item for item in super().levels(image)]


class NoSideExits(ToyBackbone):
    def forward(self, image):
        return Pyramid(tuple(self.levels(image)), self.strides)


class ForgetsGradients(ToyBackbone):
    def run_block(self, module, state):
        return module(state.detach() if self.grad_checkpointing else state)


class MeasuresInEvaluation(ToyBackbone):
    def measure(self, size=None):
        shapes = super().measure(size)
        self.eval()
        return shapes


BACKBONES = {name: partial(TwistedToy, mode) for name, mode in COMMON.items()} | {
    "declared_shapes": WrongStrides,
    "odd_sizes": CutsTheBorder,
    "padding_is_zeros_below_and_right": PadsAbove,
    "blocks_equal_forward": OtherForward,
    "levels_are_side_exits": NoSideExits,
    "checkpointing_is_equal": ForgetsGradients,
    "measuring_leaves_no_trace": MeasuresInEvaluation,
    "state_round_trip": partial(TwistedToy, "hidden"),
}


class Wrapped(Backbone):
    """A backbone whose maps go through a mistake."""

    def __init__(self, inner, mode):
        super().__init__()
        self.inner, self.twist = inner, Twist(mode)
        self.channels, self.strides = inner.channels, inner.strides
        if mode == "channels":
            self.channels = (1, 2, 3, 4)

    def levels(self, image):
        return [self.twist(item) for item in self.inner.levels(image)]


class Wraps(Adapter):
    def __init__(self, mode=""):
        self.mode = mode

    def apply(self, backbone, tasks):
        return Wrapped(backbone, self.mode)


class ChangesWeights(Adapter):
    def apply(self, backbone, tasks):
        with torch.no_grad():
            backbone.patches.weight.add_(1)
        return backbone


class RefusesWithoutAName(Adapter):
    def complete(self, network):
        if type(network.decoder).__name__ != "ParallelDecoder":
            raise ValueError("this does not fit")


class KeepsASet(Adapter):
    def plain(self, config):
        return {**config, "names": {"a set", "is no JSON"}}


ADAPTERS = {name: (Wraps, {"options": {"mode": mode}}) for name, mode in COMMON.items()} | {
    "keeps_the_backbone_contract": (Wraps, {"options": {"mode": "channels"}}),
    "keeps_parameters": (ChangesWeights, {}),
    "cost_is_counted": (Wraps, {"options": {"mode": "meta"}}),
    "identity_at_start": (Wraps, {"options": {"mode": "double"}, "identity_at_start": True}),
    "architecture_is_plain_data": (KeepsASet, {}),
    "round_trip": (Wraps, {"options": {"mode": "hidden"}}),
    "subset_equals_whole": (Wraps, {"options": {"mode": "context"}}),
    "trains_with_every_decoder": (RefusesWithoutAName, {"decoders": [{"type": "ConcatDecoder"}]}),
    "rules_over_gradients_agree": (Wraps, {"options": {"mode": "growing"}}),
    "slims_or_is_refused": (Wraps, {"options": {"mode": "hidden"}}),
    "halves_average_to_the_whole": (Wraps, {"options": {"mode": "mixing"}}),
}
