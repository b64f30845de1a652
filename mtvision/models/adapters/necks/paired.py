"""A public and a private way from the image to logits, side by side, and gates behind both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtvision.core.output import DecoderOutput
from mtvision.core.pyramid import Pyramid, TaskPyramids
from mtvision.core.registry import DECODERS, HEADS
from mtvision.models.adapters.mtan import AttendedPyramids
from mtvision.models.adapters.necks.gates import GateName, PublicPrivateBackbone, SafeGate, mix
from mtvision.models.declarations import Declaration
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.network import Network


class PairedPyramids(AttendedPyramids):
    """Private pyramids, each computed when it is read, and the public one.

    Args:
        public: pyramid of the public encoder.
        tasks: names.
        private: task name to maps of its private encoder.
    """

    def __init__(self, public: Pyramid, tasks: Sequence[str], private: Callable[[str], list[Tensor]]) -> None:
        super().__init__(public, tasks, private)
        object.__setattr__(self, "_public", public)

    @property
    def public(self) -> Pyramid:
        """What the public encoder gives."""
        pyramid: Pyramid = self.__dict__["_public"]
        return pyramid


class PairedBackbone(PublicPrivateBackbone):
    """A public backbone and a private one per task, whose maps are not mixed."""

    def forward(self, image: Tensor) -> TaskPyramids:
        """Private pyramids of an image batch (B, 3, H, W), beside the public one."""
        public: Pyramid = self.public(image)  # type: ignore[misc]
        return PairedPyramids(public, self.task_names, lambda name: self.private_maps(name, image))


class PairedDecoder(Decoder):
    """Two decoders: one reads the public encoder, the other one the private encoders.

    A task's features are those of the public decoder, then those of the private one, along channels. Deep
    supervision of both counts as in a network with one decoder. So the private side has the gradients of a
    single-task network where its gate is open alone.

    Args:
        public: reads the public pyramid.
        private: reads the private ones.
    """

    def __init__(self, public: Decoder, private: Decoder) -> None:
        super().__init__(channels=public.channels, strides=public.strides, tasks=public.tasks)
        self.public, self.private = public, private
        self.out_channels = {name: 2 * count for name, count in public.out_channels.items()}

    def declaration(self) -> Declaration:
        """Neither slimmed nor branched."""
        reason = "PublicPrivate(behind='decoder') has a public and a private encoder and decoder already"
        return Declaration(cannot_slim=reason, cannot_branch=reason)

    def reads(self, tasks: Sequence[str] | None) -> Sequence[str] | None:
        """What each of the two reads."""
        return self.public.reads(tasks)

    def recomputed(self) -> list[str]:
        """Paths in both decoders."""
        paths = self.public.recomputed()
        return [f"{side}.{path}".removesuffix(".") for side in ("public", "private") for path in paths]

    def output_layers(self, task: str) -> list[nn.Conv2d]:
        """Of deep supervision of both decoders."""
        return [*self.public.output_layers(task), *self.private.output_layers(task)]

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features (B, 2·C, h, w): C channels of the public decoder, C of the private one."""
        if not isinstance(pyramid, PairedPyramids):
            raise TypeError(
                f"PairedDecoder: a {type(pyramid).__name__} has no public pyramid. Call the whole network."
            )
        public, private = self.public(pyramid.public, tasks), self.private(pyramid, tasks)
        features = {
            name: torch.cat([feature, private.features[name]], dim=1)
            for name, feature in public.features.items()
        }
        return DecoderOutput(features, [*public.auxiliary, *private.auxiliary])


class MixedHead(nn.Module):
    """Logits of a public and of a private head, mixed by a gate.

    Args:
        public: reads the first half of the channels.
        private: reads the second half.
        gate: kind of the gate.
    """

    def __init__(self, public: nn.Module, private: nn.Module, gate: GateName) -> None:
        super().__init__()
        self.public, self.private, self.architecture_gate = public, private, SafeGate(gate)

    def forward(self, feature: Tensor) -> Tensor:
        """Logits (B, K, h, w) of a map (B, 2·C, h', w')."""
        first, second = feature.chunk(2, dim=1)
        return mix(self.architecture_gate(), self.public(first), self.private(second))


def pair_decoders(network: Network, gate: GateName) -> None:
    """Give the private encoders a decoder and heads like those of the public one, and mix logits.

    Args:
        network: its backbone is a `PairedBackbone`; it is changed.
        gate: kind of the gates.

    Raises:
        ValueError: another adapter stands behind, so that the two pyramids do not reach the decoders.
    """
    if not isinstance(network.backbone, PairedBackbone):
        raise ValueError(
            "PublicPrivate: with behind='decoder' two decoders read its maps, but "
            f"{type(network.backbone).__name__} of a later adapter takes them. Put PublicPrivate last in "
            "model.adapters."
        )
    decoder, parts = network.decoder, network.architecture
    second = DECODERS.build(
        parts["decoder"], channels=decoder.channels, strides=decoder.strides, tasks=decoder.tasks
    )
    network.decoder = PairedDecoder(decoder, second)
    for task in network.tasks:
        channels = decoder.out_channels[task.name]
        private = HEADS.build(parts["heads"][task.name], in_channels=channels, task=task)
        network.heads[task.name] = MixedHead(network.heads[task.name], private, gate)
