"""What students of several teachers are built on: a plain ViT whose levels are read without a final norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtvision.models.backbones.backbone import Backbone
from mtvision.models.backbones.timm_backbone import TimmBackbone
from mtvision.models.layers.names import TAKEN


def plain_stem(backbone: Backbone, user: str) -> TimmBackbone:
    """The backbone, if it is a plain ViT that may become a student.

    Args:
        backbone: what an adapter is given.
        user: name of the adapter, for messages.

    Raises:
        TypeError: it is no plain ViT of timm.
        ValueError: it has a feature pyramid, norms behind its levels, or passes per task.
    """
    if not isinstance(backbone, TimmBackbone) or not backbone.is_plain:
        name = backbone.name if isinstance(backbone, TimmBackbone) else type(backbone).__name__
        raise TypeError(
            f"{user}: {name} is no plain ViT. Use TimmBackbone with a vit_*, and put this adapter first."
        )
    if backbone.pyramid is not None or backbone.level_norms is not None:
        raise ValueError(
            f"{user}: pyramid and level_norms of the backbone stand behind the maps that are compared with "
            "teachers. Leave both out; decoders of this suite read maps of one stride."
        )
    if backbone.task_passes is not None:
        raise ValueError(f"{user}: an adapter before runs the backbone once per task. Leave one of them out.")
    return backbone


def teacher_widths(
    teachers: Mapping[str, int | Sequence[int]], levels: int, user: str
) -> dict[str, tuple[int, ...]]:
    """{teacher: channels of its maps at each level of the student}.

    Args:
        teachers: {name: channels of all its levels, or of each}.
        levels: of the student.
        user: name of the adapter, for messages.

    Raises:
        ValueError: there is no teacher, one has another number of levels, or a name that torch does not
            allow.
    """
    if not teachers:
        raise ValueError(f"{user}.teachers: no teacher. Name one at least, e.g. teachers=dict(dinov2=768).")
    widths = {}
    for name, channels in teachers.items():
        if name in TAKEN or "." in name:
            raise ValueError(
                f"{user}.teachers: torch's modules cannot have the name '{name}'. Choose another, e.g. "
                f"'{name.replace('.', '_')}_teacher', here and in DistillStep."
            )
        given = (channels,) * levels if isinstance(channels, int) else tuple(channels)
        if len(given) != levels:
            raise ValueError(
                f"{user}: teachers.{name}={list(given)} are {len(given)} levels, the backbone has {levels}. "
                "Give one number for each level, or one for all."
            )
        widths[name] = given
    return widths


class Student(Backbone):
    """A plain ViT inside another backbone, which is cut where the ViT is.

    Args:
        inner: the ViT.
    """

    def __init__(self, inner: TimmBackbone) -> None:
        super().__init__()
        self.channels, self.strides, self.exits = inner.channels, inner.strides, inner.exits
        self.size_multiple, self.grad_checkpointing = inner.size_multiple, inner.grad_checkpointing
        self.inner = inner

    def stem(self, image: Tensor) -> Tensor:
        """The ViT's tokens before its first block."""
        return self.inner.stem(image)

    def block_names(self) -> list[str]:
        """Those of the ViT."""
        return [f"inner.{name}" for name in self.inner.block_names()]

    def to_map(self, state: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """The ViT's map."""
        return self.inner.to_map(state, level, size)

    def state_shape(self, state: Tensor, size: tuple[int, int]) -> tuple[int, int]:
        """(channels, stride) of the ViT's state."""
        return self.inner.state_shape(state, size)

    def resampled(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the ViT's."""
        prefix = "inner."
        own = {name.removeprefix(prefix): item for name, item in state.items() if name.startswith(prefix)}
        return {prefix + name: item for name, item in self.inner.resampled(own).items()}


def taken_norm(backbone: TimmBackbone) -> nn.Module:
    """The final norm of a ViT, which no longer has it; an identity if it had none."""
    if not backbone.norms_last:
        return nn.Identity()
    norm: nn.Module = backbone.model.norm
    backbone.model.norm = nn.Identity()
    return norm


def over_channels(layer: nn.Module, feature: Tensor) -> Tensor:
    """A layer over the channels of a map (B, C, h, w)."""
    result: Tensor = layer(feature.permute(0, 2, 3, 1))
    return result.permute(0, 3, 1, 2)
