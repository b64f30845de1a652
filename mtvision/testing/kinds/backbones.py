"""`check_backbone`: what every backbone promises."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.core.pyramid import Pyramid, size_of
from mtvision.models.backbones.backbone import Backbone
from mtvision.testing import modules
from mtvision.testing.battery import Battery
from mtvision.testing.inputs import random_image
from mtvision.testing.modules import Setting
from mtvision.testing.numbers import all_finite, expect
from mtvision.testing.report import NotApplicable, Report


@dataclass(frozen=True, kw_only=True)
class BackboneCase:
    """A backbone and the images that it sees.

    Args:
        make: returns a fresh backbone with the same architecture on each call.
        setting: device and precision.
        size: (H, W) of the images; `trial_size()` of the backbone by default.
        odd_size: (H, W) that no stride divides; None if the architecture takes one size only.
        dead: patterns of parameter names that no gradient reaches by design.
    """

    make: Callable[[], Backbone]
    setting: Setting = field(default_factory=Setting)
    size: tuple[int, int] | None = None
    odd_size: tuple[int, int] | None = (53, 75)
    dead: Collection[str] = ()

    def build(self) -> Backbone:
        """A fresh backbone on the device."""
        return self.setting.module(self.make())

    @cached_property
    def backbone(self) -> Backbone:
        """Disturbed, in evaluation mode; properties leave it as it is."""
        return modules.disturb(self.build()).eval()

    @cached_property
    def image(self) -> Tensor:
        """Two images."""
        return self.setting.tensor(random_image(2, self.size or self.backbone.trial_size()))

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images."""
        return size_of(self.image)

    def pyramid(self, backbone: Backbone, image: Tensor) -> Pyramid:
        """In the setting's precision."""
        with self.setting.autocast():
            pyramid: Pyramid = backbone(image)
        return pyramid

    def run(self, backbone: Backbone, image: Tensor) -> dict[str, Tensor]:
        """{level: map}, without graph."""
        with torch.no_grad():
            return levels_of(self.pyramid(backbone, image))

    @cached_property
    def whole(self) -> dict[str, Tensor]:
        """Maps of both images."""
        return self.run(self.backbone, self.image)


BACKBONE: Battery[BackboneCase] = Battery(
    "backbone", "mtvision.testing.check_backbone(make, only=['{name}'])"
)


def check_backbone(
    make: Callable[[], Backbone],
    *,
    skip: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **case: Any,
) -> Report:
    """Run the properties of backbones on one of them.

    Args:
        make: returns a fresh backbone on each call, without arguments.
        skip: {property: reason} of those that do not apply.
        only: names of the properties to run, all by default; `properties("backbone")` lists them.
        device: where to run.
        dtype: `float32` or `float64`; `bfloat16` and `float16` run under autocast.
        case: fields of `BackboneCase`: `size`, `odd_size`, `dead`.

    >>> from mtvision.testing import check_backbone
    >>> from mtvision.testing.inputs import ToyBackbone
    >>> check_backbone(ToyBackbone, only=["declared_shapes", "odd_sizes"]).passed
    ('declared_shapes', 'odd_sizes')
    """
    name = make.__qualname__ if isinstance(make, type) else type(make()).__qualname__
    made = BackboneCase(make=make, setting=Setting(device, dtype), **case)
    return BACKBONE.run(name, made, only=only, skip=skip)


def levels_of(pyramid: Pyramid) -> dict[str, Tensor]:
    """{level: map} of a pyramid."""
    return {f"level {index}": item for index, item in enumerate(pyramid.maps)}


@BACKBONE.property("backbone.channels, backbone.strides; [m.shape for m in backbone(image).maps]")
def declared_shapes(case: BackboneCase) -> None:
    """Maps have the channels and strides that the backbone declares, fine to coarse."""
    backbone, pyramid = case.backbone, case.pyramid(case.backbone, case.image)
    expect(
        pyramid.strides == tuple(backbone.strides),
        f"strides {pyramid.strides} come out, {tuple(backbone.strides)} are declared.",
    )
    expect(
        pyramid.channels == tuple(backbone.channels),
        f"channels {pyramid.channels} come out, {tuple(backbone.channels)} are declared; "
        "call measure() at the end of the constructor.",
    )
    _check_sizes(case, pyramid, case.image)
    all_finite(levels_of(pyramid).items())


@BACKBONE.property("[m.shape for m in backbone(torch.randn(1, 3, *odd_size)).maps]")
def odd_sizes(case: BackboneCase) -> None:
    """Images of any size give maps of ceil(padded side / stride)."""
    if case.odd_size is None:
        raise NotApplicable("odd_size=None: the architecture takes images of one size.")
    image = case.setting.tensor(random_image(1, case.odd_size))
    with torch.no_grad():
        pyramid = case.pyramid(case.backbone, image)
    _check_sizes(case, pyramid, image)
    all_finite(levels_of(pyramid).items())


@BACKBONE.property("backbone(image) against backbone(F.pad(image, (0, right, 0, bottom)))")
def padding_is_zeros_below_and_right(case: BackboneCase) -> None:
    """An image that is no multiple of `size_multiple` is padded with zeros below and on the right."""
    multiple = case.backbone.size_multiple
    if multiple == 1:
        raise NotApplicable("size_multiple is 1: images are not padded.")
    height, width = case.image.shape[-2:]
    image = case.image.clone()
    image[..., height - multiple // 2 :, :] = 0
    image[..., width - 1 :] = 0
    cut = image[..., : height - multiple // 2, : width - 1]
    modules.agree(
        case.run(case.backbone, cut), case.run(case.backbone, image), "cut image:", case.setting.dtype
    )


@BACKBONE.property("state = backbone.stem(image); state = block(state); backbone.to_map(state, level, size)")
def blocks_equal_forward(case: BackboneCase) -> None:
    """Stem, blocks and exits, one after the other, give the maps of `forward`; shapes are as declared."""
    backbone, size = case.backbone, case.image_size
    if not backbone.exits:
        raise NotApplicable("exits is empty: the architecture is not cut into blocks.")
    blocks = backbone.blocks
    with torch.no_grad(), case.setting.autocast():
        states = [backbone.stem(case.image)]
        for block in blocks:
            states.append(block(states[-1]))
            found = backbone.state_shape(states[-1], size)
            declared = (block.out_channels, block.stride)
            expect(found == declared, f"block {block.name} writes {found}, declares {declared}.")
        maps = {
            f"level {level}": backbone.to_map(states[at], level, size)
            for level, at in enumerate(backbone.exits)
        }
    modules.agree_exactly(maps, case.whole, "by blocks:")
    for before, after in pairwise(blocks):
        expect(
            before.out_channels == after.in_channels,
            f"block {after.name} reads {after.in_channels} channels, {before.name} writes "
            f"{before.out_channels}.",
        )
    for block in blocks:
        expect(
            backbone.get_submodule(block.name) is block.module,
            f"block {block.name} is not the module at its path, so what is put there is not used.",
        )


@BACKBONE.property("torch.autograd.grad(maps[-1].sum(), maps[0], allow_unused=True)")
def levels_are_side_exits(case: BackboneCase) -> None:
    """The gradient of a coarse level does not run through the tensor of a finer one."""
    maps = case.pyramid(case.backbone, case.image).maps
    for index, item in enumerate(maps[1:], 1):
        others = [other for other in maps[:index] if other.requires_grad]
        gradients = torch.autograd.grad(item.sum(), others, retain_graph=True, allow_unused=True)
        inside = [level for level, gradient in enumerate(gradients) if gradient is not None]
        expect(
            not inside,
            f"level {index} is computed from the returned tensors of levels {inside}; return "
            "Pyramid.of(maps, strides), which takes views.",
        )


@BACKBONE.property("change image[1] and compare backbone(image).maps[0][0]")
def samples_are_independent(case: BackboneCase) -> None:
    """In evaluation mode no image of a batch changes another's maps."""
    modules.check_independence(lambda image: levels_of(case.pyramid(case.backbone, image)), case.image)


@BACKBONE.property("backbone(image[:1]) against the first sample of backbone(image)")
def batch_of_one(case: BackboneCase) -> None:
    """One image gives what it gives in a batch."""
    found = case.run(case.backbone, case.image[:1])
    modules.agree(found, {n: item[:1] for n, item in case.whole.items()}, "one image:", case.setting.dtype)


@BACKBONE.property("with torch.autocast(device, torch.bfloat16): backbone(image)")
def bfloat16_is_close(case: BackboneCase) -> None:
    """Under autocast with bfloat16 maps differ from full precision by rounding alone."""
    modules.check_bfloat16(case.setting, lambda: levels_of(case.backbone(case.image)))


@BACKBONE.property("backbone.to(memory_format=torch.channels_last)(image in channels_last)")
def channels_last_is_equal(case: BackboneCase) -> None:
    """The memory format of weights and images changes nothing."""
    last = torch.channels_last
    backbone = case.build().eval()
    backbone.load_state_dict(case.backbone.state_dict())
    found = case.run(backbone.to(memory_format=last), case.image.to(memory_format=last))  # type: ignore[call-overload]
    modules.agree(found, case.whole, "channels last:", case.setting.dtype)


@BACKBONE.property("backbone.grad_checkpointing = True; compare gradients of parameters and of the image")
def checkpointing_is_equal(case: BackboneCase) -> None:
    """Recomputing blocks in the backward pass gives the same maps and gradients."""
    found: list[dict[str, Tensor]] = []
    for saving in (False, True):
        backbone = case.build().train()
        backbone.load_state_dict(case.backbone.state_dict())
        backbone.grad_checkpointing = saving
        torch.manual_seed(1)  # the same paths are dropped
        maps = levels_of(case.pyramid(backbone, case.image))
        torch.autograd.backward(torch.stack([item.float().square().mean() for item in maps.values()]).sum())
        gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
        found.append({n: item.detach() for n, item in maps.items()} | gradients)
    modules.agree(found[1], found[0], "grad_checkpointing:", case.setting.dtype)


@BACKBONE.property("[n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]")
def gradients_reach_every_parameter(case: BackboneCase) -> None:
    """The maps reach every trainable parameter that is not declared dead."""

    def loss(backbone: Backbone, number: int) -> Tensor:
        image = case.setting.tensor(random_image(2, case.image_size, number + 1))
        maps = [item.float() for item in case.pyramid(backbone.train(), image).maps]
        return torch.stack([(item * torch.randn_like(item)).sum() for item in maps]).sum()

    idle = modules.idle_parameters(lambda: modules.disturb(case.build()), loss)
    modules.check_idle(idle, case.dead)


@BACKBONE.property("backbone.eval()(image) twice; backbone.state_dict() before and after")
def evaluation_is_deterministic(case: BackboneCase) -> None:
    """Two passes in evaluation mode are equal to the bit and leave the state as it is."""
    before = {name: item.clone() for name, item in case.backbone.state_dict().items()}
    modules.agree_exactly(case.run(case.backbone, case.image), case.whole, "second pass:")
    modules.agree_exactly(case.backbone.state_dict(), before, "state after a pass:")


@BACKBONE.property("backbone.train(); backbone.measure(); backbone.state_dict(); torch.get_rng_state()")
def measuring_leaves_no_trace(case: BackboneCase) -> None:
    """`measure()` changes no weight, no mode and no random stream, and finds the declared shapes again."""
    backbone = case.build().train()
    declared = (tuple(backbone.channels), tuple(backbone.strides))
    before = {name: item.clone() for name, item in backbone.state_dict().items()}
    stream = torch.get_rng_state()
    backbone.measure(case.image_size if case.size else None)
    found = (tuple(backbone.channels), tuple(backbone.strides))
    expect(found == declared, f"measure() finds {found}, before it was {declared}.")
    modules.agree_exactly(backbone.state_dict(), before, "state after measure():")
    expect(torch.equal(torch.get_rng_state(), stream), "measure() draws from the global generator.")
    quiet = [name for name, module in backbone.named_modules() if not module.training]
    expect(not quiet, f"measure() leaves {quiet[:5]} in evaluation mode.")


@BACKBONE.property("make().load_state_dict(torch.load(file, weights_only=True), strict=True)")
def state_round_trip(case: BackboneCase) -> None:
    """Saved state loads strictly into a fresh backbone, which then gives the same maps to the bit."""
    fresh = case.build().eval()
    modules.reload(case.backbone, fresh)
    modules.agree_exactly(case.run(fresh, case.image), case.whole, "loaded backbone:")


@BACKBONE.property("copy.deepcopy(backbone); pickle.loads(pickle.dumps(backbone))")
def copies_are_equal(case: BackboneCase) -> None:
    """Deep copies and pickles give the same maps and share no parameter."""
    for way, other in modules.copies(case.backbone).items():
        modules.agree_exactly(case.run(other, case.image), case.whole, f"{way}:")


@BACKBONE.property("torch.export.export(module, (image,), strict=False)")
def exportable(case: BackboneCase) -> None:
    """`torch.export` traces the backbone, and the program gives the same maps."""
    module = Levels(case.backbone).eval()
    with torch.no_grad():
        want = module(case.image)
    modules.check_export(module, (case.image,), want, case.setting.real)


class Levels(nn.Module):
    """A backbone that returns a dict of tensors."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """{level: map} of images (B, 3, H, W)."""
        return levels_of(self.backbone(image))


def _check_sizes(case: BackboneCase, pyramid: Pyramid, image: Tensor) -> None:
    multiple, size = case.backbone.size_multiple, tuple(image.shape[-2:])
    padded = [-(-side // multiple) * multiple for side in size]
    for level, (item, stride) in enumerate(zip(pyramid.maps, pyramid.strides, strict=True)):
        want = (len(image), *(-(-side // stride) for side in padded))
        found = (len(item), *item.shape[-2:])
        expect(
            item.ndim == 4 and found == want,
            f"level {level}: shape {tuple(item.shape)} of images {tuple(size)}, expected batch and sides "
            f"{want} at stride {stride}.",
        )
