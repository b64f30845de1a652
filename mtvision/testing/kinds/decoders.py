"""`check_decoder`: what every decoder promises."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from mtvision.core.naming import UnknownNameError
from mtvision.core.output import DecoderOutput
from mtvision.core.pyramid import Pyramid, TaskPyramids
from mtvision.core.task import Task
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.decoders.decoder import Decoder
from mtvision.testing import modules
from mtvision.testing.battery import Battery, subject_of
from mtvision.testing.inputs import ToyBackbone, random_image, toy_tasks
from mtvision.testing.modules import Setting
from mtvision.testing.numbers import all_finite, expect
from mtvision.testing.report import NotApplicable, Report


@dataclass(frozen=True, kw_only=True)
class DecoderCase:
    """A decoder, the backbone in front of it and the images that it sees.

    Args:
        make: called with `channels`, `strides` and `tasks`.
        setting: device and precision.
        tasks: whose features are made, two or more.
        backbone: gives the pyramids.
        size: (H, W) of the images.
        odd_size: (H, W) that no stride divides.
        dead: patterns of parameter names that no gradient reaches by design.
        free_size: whether backbone and decoder take images of any size.
    """

    make: Callable[..., Decoder]
    setting: Setting = field(default_factory=Setting)
    tasks: Sequence[Task] = field(default_factory=toy_tasks)
    backbone: Backbone = field(default_factory=ToyBackbone)
    size: tuple[int, int] = (64, 96)
    odd_size: tuple[int, int] = (53, 75)
    dead: Collection[str] = ()
    free_size: bool = True

    @property
    def names(self) -> list[str]:
        """Of the tasks."""
        return [task.name for task in self.tasks]

    def build(self) -> Decoder:
        """A fresh decoder on the device."""
        made = self.make(channels=self.front.channels, strides=self.front.strides, tasks=tuple(self.tasks))
        return self.setting.module(made)

    @cached_property
    def front(self) -> Backbone:
        """The backbone on the device, in evaluation mode."""
        return self.setting.module(self.backbone).eval()

    @cached_property
    def decoder(self) -> Decoder:
        """Disturbed, in evaluation mode; properties leave it as it is."""
        return modules.disturb(self.build()).eval()

    @cached_property
    def image(self) -> Tensor:
        """Three images."""
        return self.setting.tensor(random_image(3, self.size))

    @cached_property
    def pyramid(self) -> Pyramid:
        """Of the three images, without graph."""
        return self.pyramid_of(self.image)

    def pyramid_of(self, image: Tensor) -> Pyramid:
        """Pyramid without graph."""
        with torch.no_grad():
            pyramid: Pyramid = self.front(image)
        return pyramid

    def run(
        self, decoder: Decoder, pyramid: Pyramid, tasks: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Features in the setting's precision, without graph."""
        with torch.no_grad(), self.setting.autocast():
            output: DecoderOutput = decoder(pyramid, tasks)
        return output.features

    @cached_property
    def whole(self) -> dict[str, Tensor]:
        """Features of all tasks."""
        return self.run(self.decoder, self.pyramid)

    def trained(self, decoder: Decoder, seed: int) -> DecoderOutput:
        """Output in training mode, with graph, of other images for each seed."""
        pyramid = self.pyramid_of(self.setting.tensor(random_image(3, self.size, seed + 1)))
        with self.setting.autocast():
            output: DecoderOutput = decoder.train()(pyramid)
        return output


DECODER: Battery[DecoderCase] = Battery("decoder", "mtvision.testing.check_decoder(make, only=['{name}'])")


def check_decoder(
    make: Callable[..., Decoder],
    *,
    skip: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **case: Any,
) -> Report:
    """Run the properties of decoders on one of them.

    Args:
        make: class or function, called with `channels`, `strides` and `tasks` as the suite does.
        skip: {property: reason} of those that do not apply.
        only: names of the properties to run, all by default; `properties("decoder")` lists them.
        device: where to run.
        dtype: `float32` or `float64`; `bfloat16` and `float16` run under autocast.
        case: fields of `DecoderCase`: `tasks`, `backbone`, `size`, `odd_size`, `dead`, `free_size`.

    >>> from functools import partial
    >>> from mtvision.models.decoders import ParallelDecoder
    >>> from mtvision.testing import check_decoder
    >>> graphs = ("exportable", "compiles_whole", "exportable_at_any_size")
    >>> skip = dict.fromkeys(graphs, "shown elsewhere")
    >>> report = check_decoder(partial(ParallelDecoder, width=8), skip=skip)
    >>> report.ok, len(report.skipped)
    (True, 3)
    """
    setting = Setting(device, dtype)
    return DECODER.run(
        subject_of(make), DecoderCase(make=make, setting=setting, **case), only=only, skip=skip
    )


@DECODER.property("decoder.out_channels; {n: f.shape for n, f in decoder(pyramid).features.items()}")
def out_channels_are_true(case: DecoderCase) -> None:
    """Every task has one feature map (B, C, h, w), and C is what `out_channels` declares."""
    expect(list(case.whole) == case.names, f"features of {list(case.whole)}, expected those of {case.names}.")
    for name, item in case.whole.items():
        expect(
            item.ndim == 4 and len(item) == 3, f"'{name}': shape {tuple(item.shape)}, expected (3, C, h, w)."
        )
        declared = case.decoder.out_channels.get(name)
        expect(
            item.shape[1] == declared,
            f"'{name}': {item.shape[1]} channels, out_channels declares {declared}.",
        )
    all_finite(case.whole.items())


@DECODER.property("decoder(pyramid, ['depth']).features against decoder(pyramid).features")
def subset_equals_whole(case: DecoderCase) -> None:
    """Some of the tasks give the same features alone as among all, in the network's order."""
    for count in range(1, len(case.names)):
        for chosen in combinations(case.names, count):
            asked = list(reversed(chosen))
            found = case.run(case.decoder, case.pyramid, asked)
            modules.agree(
                found, {name: case.whole[name] for name in chosen}, f"tasks={asked}:", case.setting.dtype
            )


@DECODER.property("decoder(pyramid, ['no such task'])")
def unknown_task_is_refused(case: DecoderCase) -> None:
    """A task that the decoder does not have raises `UnknownNameError`, which is a `KeyError`."""
    try:
        case.run(case.decoder, case.pyramid, ["no such task"])
    except UnknownNameError:
        return
    expect(False, "tasks=['no such task'] was accepted; begin forward with self.asked(tasks).")


@DECODER.property("decoder(TaskPyramids({name: pyramid for name in decoder.reads(tasks)}), tasks)")
def task_pyramids_are_read(case: DecoderCase) -> None:
    """Every task reads its own pyramid, and a subset needs the pyramids of `reads(subset)` alone."""
    reason = case.decoder.declaration().cannot_branch
    if reason:
        raise NotApplicable(f"the declaration says cannot_branch: {reason}")
    equal = TaskPyramids(dict.fromkeys(case.names, case.pyramid))
    modules.agree(
        case.run(case.decoder, equal), case.whole, "the same pyramid for every task:", case.setting.dtype
    )
    own = {
        name: case.pyramid_of(case.setting.tensor(random_image(2, case.size, 10 + index)))
        for index, name in enumerate(case.names)
    }
    whole = case.run(case.decoder, TaskPyramids(own))
    for name in case.names:
        read = case.decoder.reads([name])
        kept = {other: own[other] for other in (case.names if read is None else read)}
        found = case.run(case.decoder, TaskPyramids(kept), [name])
        modules.agree(found, {name: whole[name]}, f"pyramids of {list(kept)}:", case.setting.dtype)
        other = case.pyramid_of(case.setting.tensor(random_image(2, case.size, 20)))
        changed = case.run(case.decoder, TaskPyramids(own | {name: other}))
        expect(
            not torch.equal(changed[name], whole[name]),
            f"'{name}' stays the same with another pyramid of its own; read pyramid.for_task('{name}').",
        )


@DECODER.property("decoder(backbone(image[:1])) against the first sample of decoder(backbone(image))")
def batch_of_one(case: DecoderCase) -> None:
    """One image gives what it gives in a batch, and one image can be trained on."""
    found = case.run(case.decoder, case.pyramid_of(case.image[:1]))
    modules.agree(found, {n: item[:1] for n, item in case.whole.items()}, "one image:", case.setting.dtype)
    decoder = case.build().train()
    with case.setting.autocast():
        features = decoder(case.pyramid_of(case.image[:1])).features
    all_finite((f"'{name}' in training", item) for name, item in features.items())


@DECODER.property("decoder(backbone(torch.randn(2, 3, *odd_size)))")
def odd_sizes(case: DecoderCase) -> None:
    """Images whose sides no stride divides, one of them small, give finite maps for every task."""
    image = case.setting.tensor(random_image(2, case.odd_size, 3))
    found = case.run(case.decoder, case.pyramid_of(image))
    expect(list(found) == case.names, f"features of {list(found)}, expected {case.names}.")
    all_finite(found.items())
    for name, item in found.items():
        fits = item.ndim == 4 and len(item) == 2 and item.numel() > 0
        expect(fits, f"'{name}': shape {tuple(item.shape)} for two images of {case.odd_size}.")


@DECODER.property("change image[1] and compare decoder(backbone(image)).features['depth'][0]")
def samples_are_independent(case: DecoderCase) -> None:
    """In evaluation mode no sample of a batch changes another."""
    pyramids = case.pyramid
    leaves = [item.detach().clone().requires_grad_() for item in pyramids.maps]
    if type(pyramids) is Pyramid:
        with case.setting.autocast():
            features = case.decoder(Pyramid.of(leaves, pyramids.strides)).features
        for name, item in features.items():
            gradients = torch.autograd.grad(
                item[0].float().sum(), leaves, retain_graph=True, allow_unused=True
            )
            leak = max((float(g[1:].abs().max()) for g in gradients if g is not None), default=0.0)
            expect(leak == 0, f"'{name}' of sample 0 changes with another sample (gradient {leak:.3g}).")
    else:

        def output(image: Tensor) -> dict[str, Tensor]:
            with case.setting.autocast():
                return dict(case.decoder(case.front(image)).features)

        modules.check_independence(output, case.image)


@DECODER.property("with torch.autocast(device, torch.bfloat16): decoder(pyramid).features")
def bfloat16_is_close(case: DecoderCase) -> None:
    """Under autocast with bfloat16 features differ from full precision by rounding alone."""
    modules.check_bfloat16(case.setting, lambda: case.decoder(case.pyramid).features)


@DECODER.property("decoder.to(memory_format=torch.channels_last) on channels_last maps")
def channels_last_is_equal(case: DecoderCase) -> None:
    """The memory format of weights and maps changes nothing."""
    last = torch.channels_last
    decoder = case.build().eval()
    decoder.load_state_dict(case.decoder.state_dict())
    pyramid = case.pyramid_of(case.image)
    for item in pyramid.maps:
        item.data = item.data.to(memory_format=last)
    found = case.run(decoder.to(memory_format=last), pyramid)  # type: ignore[call-overload]
    modules.agree(found, case.whole, "channels last:", case.setting.dtype)


@DECODER.property("[n for n, p in decoder.named_parameters() if p.grad is None or not p.grad.any()]")
def gradients_reach_every_parameter(case: DecoderCase) -> None:
    """Features and deep supervision reach every trainable parameter that is not declared dead."""

    def loss(decoder: Decoder, number: int) -> Tensor:
        output = case.trained(decoder, number)
        maps = [*output.features.values(), *(item.logits for item in output.auxiliary)]
        return torch.stack([(item.float() * torch.randn_like(item.float())).sum() for item in maps]).sum()

    idle = modules.idle_parameters(lambda: modules.disturb(case.build()), loss)
    modules.check_idle(idle, case.dead)


@DECODER.property("decoder.train()(pyramid).auxiliary; decoder.eval()(pyramid).auxiliary")
def supervision_only_in_training(case: DecoderCase) -> None:
    """Deep supervision belongs to known tasks, has their channels, and is absent in evaluation mode."""
    with torch.no_grad(), case.setting.autocast():
        expect(not case.decoder(case.pyramid).auxiliary, "auxiliary logits in evaluation mode.")
    channels = {task.name: task.out_channels for task in case.tasks}
    for item in case.trained(case.build(), 0).auxiliary:
        expect(item.task in channels, f"auxiliary logits of '{item.task}', which is no task.")
        expect(
            item.logits.ndim == 4 and item.logits.shape[1] == channels[item.task],
            f"auxiliary logits of '{item.task}': shape {tuple(item.logits.shape)}, expected "
            f"(B, {channels[item.task]}, h, w).",
        )
        expect(item.weight >= 0, f"auxiliary logits of '{item.task}': weight {item.weight}.")


@DECODER.property("decoder.eval()(pyramid) twice; decoder.state_dict() before and after")
def evaluation_is_deterministic(case: DecoderCase) -> None:
    """Two passes in evaluation mode are equal to the bit and leave the state as it is."""
    before = {name: item.clone() for name, item in case.decoder.state_dict().items()}
    modules.agree_exactly(case.run(case.decoder, case.pyramid), case.whole, "second pass:")
    modules.agree_exactly(case.decoder.state_dict(), before, "state after a pass:")


@DECODER.property("make(...).load_state_dict(torch.load(file, weights_only=True), strict=True)")
def state_round_trip(case: DecoderCase) -> None:
    """Saved state loads strictly into a fresh decoder, which then gives the same features to the bit."""
    fresh = case.build().eval()
    modules.reload(case.decoder, fresh)
    modules.agree_exactly(case.run(fresh, case.pyramid), case.whole, "loaded decoder:")


@DECODER.property("copy.deepcopy(decoder); pickle.loads(pickle.dumps(decoder))")
def copies_are_equal(case: DecoderCase) -> None:
    """Deep copies and pickles give the same features and share no parameter."""
    for way, other in modules.copies(case.decoder).items():
        modules.agree_exactly(case.run(other, case.pyramid), case.whole, f"{way}:")


@DECODER.property("torch.export.export(module, (maps,), strict=False)")
def exportable(case: DecoderCase) -> None:
    """`torch.export` traces the decoder, and the program gives the same features."""
    module, inputs = _traced(case, case.image)
    with torch.no_grad():
        want = module(*inputs)
    modules.check_export(module, inputs, want, case.setting.real)


@DECODER.property("torch.compile(decoder, fullgraph=True, dynamic=True, backend='eager')(pyramid)")
def compiles_whole(case: DecoderCase) -> None:
    """`torch.compile` sees one graph without breaks, which gives the same features at three sizes."""
    case = replace(case, tasks=tuple(case.tasks)[:2])  # more bring no new operator, and tracing takes long
    # No batch of one image, which torch compiles on its own: that would double the time.
    trials = [_traced(case, image)[1] for image in _trials(case, (2, 3, 4))]
    modules.check_graph(_traced(case, case.image)[0], trials, case.setting.real)


@DECODER.property("torch.export.export(module, (maps,), dynamic_shapes=({0: D, 2: D, 3: D},), strict=False)")
def exportable_at_any_size(case: DecoderCase) -> None:
    """`torch.export` traces the decoder once for all batches and sizes that its backbone takes."""
    case = replace(case, tasks=tuple(case.tasks)[:2])  # more bring no new operator, and tracing takes long
    trials = [_traced(case, image)[1] for image in _trials(case)]
    module, inputs = _traced(case, case.image)
    free = {0: Dim.DYNAMIC} | ({2: Dim.DYNAMIC, 3: Dim.DYNAMIC} if case.free_size else {})
    shapes = ([free] * len(inputs[0]),) if isinstance(inputs[0], list) else (free,)
    modules.check_free_sizes(module, trials, shapes, case.setting.real)


def _traced(case: DecoderCase, image: Tensor) -> tuple[nn.Module, tuple[Any, ...]]:
    """The decoder as a function of plain tensors, and its arguments for an image batch."""
    if type(case.pyramid) is Pyramid:
        maps = list(case.pyramid_of(image).maps)
        return _FromMaps(case.decoder, case.pyramid.strides).eval(), (maps,)
    return _FromImage(case.front, case.decoder).eval(), (image,)


def _trials(case: DecoderCase, counts: tuple[int, int, int] = (2, 3, 1)) -> list[Tensor]:
    """Batches of `counts` images and, where the size is free, of three sizes; no map is a single row.

    The first one is traced. Its maps are not twice as large as one another, which a program would require.
    """
    height, width = case.size
    odd, wide = (2 * height + 11, 2 * width - 5), (2 * height, 2 * width)
    sizes = [odd, wide, (2 * width, 2 * height)] if case.free_size else [case.size] * 3
    drawn = zip(counts, sizes, strict=True)
    return [case.setting.tensor(random_image(count, size)) for count, size in drawn]


class _FromMaps(nn.Module):
    """A decoder as a function of plain tensors."""

    def __init__(self, decoder: Decoder, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.decoder, self.strides = decoder, strides

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self.decoder(Pyramid(tuple(maps), self.strides)).features
        return features


class _FromImage(nn.Module):
    """Backbone and decoder, for pyramids that hold more than maps."""

    def __init__(self, backbone: Backbone, decoder: Decoder) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self.decoder(self.backbone(image)).features
        return features
