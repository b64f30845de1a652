"""Any timm model as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mtvision.core.naming import UnknownNameError
from mtvision.core.pyramid import size_of
from mtvision.core.registry import BACKBONES
from mtvision.core.values import Positive, Share
from mtvision.models.backbones.backbone import Backbone, UncutError
from mtvision.models.backbones.families import default_levels, examples, family_of
from mtvision.models.backbones.family import Family
from mtvision.models.backbones.names import InputChannels, TimmName, check_in_chans, unknown_model
from mtvision.models.backbones.plain_pyramid import (
    PyramidKind,
    check_pyramid,
    make_pyramid,
    pyramid_scales,
)
from mtvision.models.weights import LoadReport, create_pretrained, load_file, resampled_tensors

# How the architectures that know only one image size are told to take any; the first that fits is used.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


@BACKBONES.register_module()
class TimmBackbone(Backbone):
    """A timm model by name, without its classifier; every parameter left serves the pyramid.

    Image sizes are free: position embeddings are resampled to the image, and the image is padded to
    `size_multiple` where the architecture needs it. Plain ViTs of all kinds, Swin, Hiera, ConvNeXt, ResNet
    and others have `blocks`, see docs/encoders.md. Other models run as one piece.

    ViT levels share one stride. Their last level, and only that one, passes the model's final norm
    (as in InvPT, ECCV 2022).

    Args:
        name: timm name, with or without a weight tag (`vit_base_patch16_384.augreg_in21k_ft_in1k`).
        pretrained: False; True, the weights of that name (see `mtvision.models.weights`); or the path of a
            `.safetensors`, `.pth` or (ViT) `.npz` file.
        levels: indices into timm's feature levels, fine to coarse; for ViTs these are block indices. By
            default strides 4 to 32, or four blocks at equal distances.
        img_size: (H, W) the position embedding is stored for. By default that of the pre-training, which is
            resampled in every forward pass. Other sizes still work.
        drop_path_rate: stochastic depth.
        level_norms: a LayerNorm over channels for every level (Swin levels come without a norm).
        final_norm: a ViT's last level passes the model's final norm.
        pyramid: strides 4 to 32 (patches of 14 pixels: 7 to 56) from a plain ViT. `simple`, all of the last
            level, as in ViTDet; `dpt`, one of each of four levels, as DPT reassembles tokens.
        pyramid_width: channels of every level of that pyramid.
        grad_checkpointing: recompute blocks in the backward pass: less memory, more time.
        in_chans: 3; other numbers are refused, because images are RGB throughout.
        options: further keyword arguments of `timm.create_model`.

    Raises:
        UnknownNameError: timm has no such model or no such weight tag.
        ValueError: an option does not exist, a level does not exist, or a file holds other weights.
        FileNotFoundError: weights could not be had; the message says where to get them.
    """

    def __init__(
        self,
        name: TimmName,
        *,
        pretrained: bool | str | Path = False,
        levels: Sequence[int] | None = None,
        img_size: int | Sequence[int] | None = None,
        drop_path_rate: Share | None = None,
        level_norms: bool = False,
        final_norm: bool = True,
        pyramid: PyramidKind | None = None,
        pyramid_width: Positive = 256,
        grad_checkpointing: bool = False,
        in_chans: InputChannels = 3,
        **options: Any,
    ) -> None:
        super().__init__()
        _check_name(name)
        check_in_chans(in_chans)
        wanted = {"img_size": img_size, "drop_path_rate": drop_path_rate}
        options = {**options, **{key: value for key, value in wanted.items() if value is not None}}
        self.model: Any  # timm ships no types
        self.load_report: LoadReport | None
        self.model, self.load_report = _create(name, pretrained, options)
        reductions = [int(item["reduction"]) for item in _feature_info(self.model)]
        self._isotropic = len(set(reductions)) == 1
        self._levels = _check_levels(name, levels, reductions)
        self.name = name
        self._family, self._refusal = family_of(self.model)
        if self._family is not None:
            self._family.prepare(self.model)
        self.size_multiple = self._family.size_multiple(self.model) if self._family else max(reductions)
        self.grad_checkpointing = grad_checkpointing
        self.exits, self._names = _units(self._family, self.model, self._levels)
        keep_norm = final_norm and (self._isotropic if self._family is None else self._family.final_norm)
        _prune(self.model, self._levels, keep_norm=keep_norm)
        if self.load_report is not None:
            self.load_report.require(self.model.state_dict())
        self.pyramid: nn.ModuleList | None = None
        if pyramid is not None:
            self._add_pyramid(pyramid, pyramid_width, level_norms=level_norms)
        self.level_norms: nn.ModuleList | None = None
        self._only_size: tuple[int, int] | None = None
        self._measure_at_any_size(_own_size(self.model, options))
        if level_norms:
            self.level_norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)

    def stem(self, image: Tensor) -> Tensor:
        """State before the first block."""
        return self._cut.stem(self.model, self.pad(image))

    def block_names(self) -> list[str]:
        """Paths of the blocks."""
        if not self._names:
            raise self._uncut()
        return list(self._names)

    def to_map(self, state: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """Map of level `level`, normed where asked for."""
        if self.norms_last and self.exits[level] == self.exits[-1]:
            state = self.model.norm(state)
        return self._norm(self._cut.to_map(self.model, state, self.padded_size(size)), level)

    def state_shape(self, state: Tensor, size: tuple[int, int]) -> tuple[int, int]:
        """(channels, stride) of a state."""
        return self._cut.shape(self.model, state, self.padded_size(size))

    def levels(self, image: Tensor) -> list[Tensor]:
        """Maps, fine to coarse."""
        if self._family is not None:
            return super().levels(image)
        padded = self.pad(image)
        size = size_of(padded)
        if self._only_size is not None and size != self._only_size:
            raise self._wrong_size(size, f"It was made for {self._only_size}.")
        try:
            maps = self.model.forward_intermediates(padded, indices=self._levels, intermediates_only=True)
        except AssertionError as error:  # timm's way to say that it cannot take this size
            raise self._wrong_size(size, str(error)) from error
        norm = dict(self.model.named_children()).get("norm")
        if self._isotropic and isinstance(norm, nn.LayerNorm):
            maps[-1] = norm(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return [self._norm(item, level) for level, item in enumerate(maps)]

    def level_modules(self) -> list[str]:
        """Paths of the modules that write the levels, where timm reports them; empty elsewhere."""
        info = _feature_info(self.model)
        names = [str(info[level].get("module", "")) for level in self._levels]
        return [f"model.{name}" for name in names] if all(names) else []

    def resampled(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Position and patch embeddings and relative position biases of another size, by timm's rules."""
        prefix = "model."
        own = {name.removeprefix(prefix): item for name, item in state.items() if name.startswith(prefix)}
        return {prefix + name: item for name, item in resampled_tensors(self.model, own).items()}

    def extra_repr(self) -> str:
        """For `print`."""
        return f"channels={self.channels}, strides={self.strides}, size_multiple={self.size_multiple}"

    @property
    def level_indices(self) -> tuple[int, ...]:
        """Indices of the levels among timm's."""
        return tuple(self._levels)

    @property
    def is_plain(self) -> bool:
        """Whether it is a plain ViT that is cut into blocks."""
        return self._family is not None and self._family.plain

    @property
    def norms_last(self) -> bool:
        """Whether the last level passes the model's final norm."""
        return self._family is not None and self._family.final_norm

    @property
    def _cut(self) -> Family:
        if self._family is None:
            raise self._uncut()
        return self._family

    def _add_pyramid(self, kind: PyramidKind, width: int, *, level_norms: bool) -> None:
        """Levels of four strides, of one exit or of four."""
        check_pyramid(
            self.name, plain=self.is_plain, levels=len(self.exits), kind=kind, level_norms=level_norms
        )
        info = _feature_info(self.model)[-1]
        patch = self.size_multiple
        self.pyramid = make_pyramid(kind, int(info["num_chs"]), width, patch)
        self.size_multiple = round(patch / pyramid_scales(patch)[-1])
        if kind == "simple":
            self.exits = self.exits[-1:] * len(self.pyramid)

    def _uncut(self) -> UncutError:
        why = f" ({self._refusal})" if self._refusal else ""
        return UncutError(
            f"{self.name} ({type(self.model).__name__} of timm) is not cut into blocks{why}, so layer decay, "
            "branching, pruning and adapters of blocks cannot be used with it. Choose one with blocks, "
            f"such as {', '.join(examples(plain=self._isotropic))}; docs/encoders.md lists what each can do."
        )

    def _measure_at_any_size(self, own_size: tuple[int, int]) -> None:
        """Dry run at an arbitrary size; where that fails, at the model's own, which is then the only one."""
        try:
            self.measure()
        except (ValueError, RuntimeError, AssertionError):
            if self._family is not None:
                raise
            self._only_size, self.size_multiple = own_size, 1
            self.measure(own_size)

    def _wrong_size(self, size: tuple[int, int], detail: str) -> ValueError:
        return ValueError(
            f"{type(self.model).__name__} cannot take images of {size}. {detail} Give the size you need as "
            "img_size=(H, W), if this architecture has that option, or choose another architecture."
        )

    def _norm(self, feature: Tensor, level: int) -> Tensor:
        if self.pyramid is not None:
            made: Tensor = self.pyramid[level](feature)
            return made
        if self.level_norms is None:
            return feature
        normed: Tensor = self.level_norms[level](feature.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


def _check_name(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown_model(name, timm.list_models())
    tags = [item.partition(".")[2] for item in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UnknownNameError(f"weight tag of timm model {architecture}", tag, tags)


def _create(
    name: str, pretrained: bool | str | Path, options: Mapping[str, Any]
) -> tuple[nn.Module, LoadReport | None]:
    """The whole timm model, classifier included, so that a weight file can be checked against all of it."""
    if torch.get_default_device().type == "meta":
        pretrained = False  # a network without values has nothing to load into
    if pretrained is True:
        return create_pretrained(name, lambda **more: _create_any_size(name, {**options, **more}))
    model = _create_any_size(name, options)
    return model, None if pretrained is False else load_file(model, Path(pretrained))


def _create_any_size(name: str, options: Mapping[str, Any]) -> nn.Module:
    for any_size in _ANY_SIZE:
        try:
            return timm.create_model(name, **{**any_size, **options})  # type: ignore[no-any-return]
        except TypeError as error:
            if any(f"'{key}'" in str(error) for key in any_size):
                continue
            given = ", ".join(sorted(options))
            raise ValueError(
                f"timm model {name}: {error} (given: {given}). "
                "Options are those of timm.create_model for this model."
            ) from error
    raise AssertionError("the last attempt adds no argument")


def _feature_info(model: nn.Module) -> list[dict[str, Any]]:
    info: Any = model.feature_info
    return list(info if isinstance(info, list) else info.info)


def _check_levels(name: str, levels: Sequence[int] | None, reductions: Sequence[int]) -> list[int]:
    if levels is None:
        return default_levels(reductions)
    given = [int(index) for index in levels]
    if not given or given != sorted(set(given)) or given[0] < 0 or given[-1] >= len(reductions):
        raise ValueError(
            f"timm model {name}: levels={given}; give rising indices from 0 to {len(reductions) - 1}. "
            f"Their strides are {list(reductions)}."
        )
    return given


def _own_size(model: Any, options: Mapping[str, Any]) -> tuple[int, int]:
    """(H, W) that a model was made for."""
    size = options.get("img_size") or tuple(model.pretrained_cfg.get("input_size", (3, 224, 224)))[1:]
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _units(
    family: Family | None, model: nn.Module, levels: Sequence[int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Exits and block names, fixed now: what adapters put in a block's place keeps its position."""
    if family is None:
        return (), ()
    groups = family.units(model)
    exits = tuple(sum(len(group) for group in groups[: level + 1]) for level in levels)
    names = [f"model.{name}" for group in groups for name in group]
    return exits, tuple(names[: exits[-1]])


def _prune(model: nn.Module, levels: Sequence[int], *, keep_norm: bool) -> None:
    """Remove classifier and stages that no level needs: distributed training rejects unused parameters."""
    model.prune_intermediate_layers(list(levels), prune_norm=not keep_norm, prune_head=True)  # type: ignore[operator]
