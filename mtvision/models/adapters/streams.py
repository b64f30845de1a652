"""One backbone per task, run side by side, with exchanges at chosen places: Cross-Stitch and NDDR-CNN."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from mtvision.core.naming import UnknownNameError
from mtvision.core.pyramid import Pyramid, TaskPyramids, size_of
from mtvision.core.registry import ADAPTERS
from mtvision.core.shapes import RememberedShapes
from mtvision.core.task import Task
from mtvision.core.values import ByTask
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.convert.files import read_tensors
from mtvision.models.declarations import Channels, Declaration, Declares
from mtvision.models.network import Network

MakeUnit = Callable[[Sequence[str], int], nn.Module]
"""(task names, channels) to a module that maps {task: (B, C, h, w)} to the same."""


class Streams(Backbone):
    """Copies of a backbone, one per task, with fusion units between their blocks.

    Args:
        backbone: what is copied, weights included.
        tasks: names.
        places: where states are fused; see `CrossStitch`.
        make_unit: makes the fusion unit of one place.

    Attributes:
        streams: {task: backbone}.
        fusions: {place: unit}; `level0` is the exit of the finest level, other names are those of blocks with
            `_` in place of `.`.

    Raises:
        NotImplementedError: the backbone is not cut into blocks.
        UnknownNameError: a place is no block.
    """

    def __init__(
        self, backbone: Backbone, tasks: Sequence[str], places: Sequence[str], make_unit: MakeUnit
    ) -> None:
        super().__init__()
        self.places = find_places(backbone, places)
        self.channels, self.strides = backbone.channels, backbone.strides
        self.size_multiple = backbone.size_multiple
        blocks = backbone.blocks
        widths = [blocks[0].in_channels, *(block.out_channels for block in blocks)]
        self._axes = channel_axes(backbone, widths)
        self.fusions = nn.ModuleDict({name: make_unit(tasks, widths[at]) for at, name in self.places.items()})
        self.streams = nn.ModuleDict({name: copy.deepcopy(backbone) for name in tasks})

    def forward(self, image: Tensor) -> TaskPyramids:
        """Pyramids of an image batch (B, 3, H, W), one per task. All are computed: every one needs all."""
        size = size_of(image)
        streams: dict[str, Backbone] = dict(self.streams.items())  # type: ignore[arg-type]
        modules = {
            name: [stream.get_submodule(path) for path in stream.block_names()]
            for name, stream in streams.items()
        }
        states = {name: stream.stem(image) for name, stream in streams.items()}
        maps: dict[str, dict[int, Tensor]] = {name: {} for name in streams}
        for position in range(len(self._axes)):
            if position:
                states = {
                    name: stream.run_block(modules[name][position - 1], states[name])
                    for name, stream in streams.items()
                }
            if position in self.places:
                states = self._fuse(position, states)
            for name, stream in streams.items():
                for level, taken_at in enumerate(stream.exits):
                    if taken_at == position:
                        maps[name][level] = stream.to_map(states[name], level, size)
        return TaskPyramids(
            {
                name: Pyramid.of([found[level] for level in range(len(self.strides))], self.strides)
                for name, found in maps.items()
            }
        )

    def levels(self, image: Tensor) -> list[Tensor]:
        """Maps of the first stream."""
        return list(self(image).maps)

    def _fuse(self, position: int, states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Units see NCHW maps; tokens become maps of one row."""
        axis, unit = self._axes[position], self.fusions[self.places[position]]
        if axis == 1:
            fused: dict[str, Tensor] = unit(states)
            return fused
        first = next(iter(states.values()))
        maps = {
            name: (state.unsqueeze(1) if state.ndim == 3 else state).movedim(-1, 1)
            for name, state in states.items()
        }
        back = {name: item.movedim(1, -1) for name, item in unit(maps).items()}
        return {name: item.squeeze(1) if first.ndim == 3 else item for name, item in back.items()}


def find_places(backbone: Backbone, places: Sequence[str]) -> dict[int, str]:
    """{number of blocks that have run: name of the place}.

    Args:
        places: `levels` (where each level of the pyramid is read), `stem` (before the first block), and names
            of blocks (after them).

    Raises:
        NotImplementedError: the backbone is not cut into blocks.
        UnknownNameError: no such place.
    """
    names = backbone.block_names()
    found: dict[int, str] = {}
    for place in places:
        if place == "levels":
            found |= {position: f"level{index}" for index, position in enumerate(backbone.exits)}
        elif place == "stem":
            found[0] = "stem"
        elif place in names:
            found[names.index(place) + 1] = place.replace(".", "_")
        else:
            raise UnknownNameError("place of a fusion", place, ["levels", "stem", *names])
    return dict(sorted(found.items()))


def channel_axes(backbone: Backbone, widths: Sequence[int]) -> list[int]:
    """Channel axis of the state at every position: 1 for NCHW, -1 for NHWC and tokens (B, N, C)."""
    side = max(128, 8 * backbone.size_multiple)
    twin = copy.deepcopy(backbone).to("meta").eval()
    axes = []
    with torch.no_grad(), RememberedShapes():
        for state, width in zip(
            twin._states(torch.empty(1, 3, side, 2 * side, device="meta")), widths, strict=True
        ):
            # The image is twice as wide as high, which tells a map's axes apart even if C = h or C = w.
            in_front = state.ndim == 4 and state.shape[1] == width and state.shape[3] == 2 * state.shape[2]
            axes.append(1 if in_front else -1)
    return axes


class CrossStitchUnit(nn.Module, Declares):
    """y_i = Σ_j α_ij ⊙ x_j with one α per pair of tasks and channel (Misra et al., CVPR 2016).

    Args:
        tasks: names.
        channels: of the maps.
        own: initial α_ii.
        other: initial α_ij of other tasks.
    """

    def __init__(self, tasks: Sequence[str], channels: int, *, own: float, other: float) -> None:
        super().__init__()
        self.channels = channels
        self.weights = nn.ModuleDict(
            {
                target: nn.ParameterDict(
                    {
                        source: nn.Parameter(torch.full((channels,), own if source == target else other))
                        for source in tasks
                    }
                )
                for target in tasks
            }
        )

    def declaration(self) -> Declaration:
        """The leading weights of every pair of tasks."""
        rows: Any = self.weights
        pairs = [f"weights.{target}.{source}" for target, row in rows.items() for source in row]
        return Declaration(tensors={key: {0: Channels(self.channels)} for key in pairs})

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mixed maps (B, C, h, w)."""
        mixed = {}
        rows: Any = self.weights
        for target, row in rows.items():
            terms = [
                row[source][:, None, None].to(feature.dtype) * feature for source, feature in maps.items()
            ]
            mixed[target] = torch.stack(terms).sum(dim=0)
        return mixed


class NDDRUnit(nn.Module):
    """All tasks concatenated, then per task a 1x1 convolution, batch norm, ReLU (Gao et al., CVPR 2019).

    Args:
        tasks: names.
        channels: C of the maps.
        own: initial weight of a channel's own value.
        other: initial weight of the same channel of other tasks.
    """

    def __init__(self, tasks: Sequence[str], channels: int, *, own: float, other: float) -> None:
        super().__init__()
        count = len(tasks)
        self.reduce = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Conv2d(count * channels, channels, 1, bias=False),
                    nn.BatchNorm2d(channels, momentum=0.05),
                    nn.ReLU(inplace=True),
                )
                for name in tasks
            }
        )
        eye = torch.eye(channels)
        for name, layers in self.reduce.items():
            blocks = [eye * (own if source == name else other) for source in tasks]
            with torch.no_grad():
                layers[0].weight.copy_(torch.cat(blocks, dim=1)[:, :, None, None])  # type: ignore[index]

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Reduced maps (B, C, h, w)."""
        joined = torch.cat([maps[name] for name in self.reduce], dim=1)
        return {name: layers(joined) for name, layers in self.reduce.items()}


class StreamsAdapter(Adapter):
    """Base of adapters that put `Streams` in the backbone's place.

    Args:
        own: initial weight of a task's own features.
        other: initial weight of each other task's features.
        places: where features are exchanged: `levels` (where each level of the pyramid is read), `stem`
            (before the first block), names of blocks (after them).
        weights: {task: checkpoint of a single-task network} to start from. Its backbone becomes the task's
            stream. Decoder and head are taken over where this network has the same. Files are read once, when
            the network is built; a checkpoint's `architecture` does not name them.

    Raises:
        NotImplementedError: the backbone is not cut into blocks.
        UnknownNameError: a place is no block, or `weights` names a task that is not there.
        ValueError: an adapter before makes the backbone differ between tasks.
    """

    task_options = ("weights",)
    unit: type[CrossStitchUnit] | type[NDDRUnit]

    def __init__(
        self,
        *,
        own: float = 0.9,
        other: float = 0.1,
        places: Sequence[str] = ("levels",),
        weights: Annotated[Mapping[str, str | Path], ByTask()] | None = None,
    ) -> None:
        self.own, self.other, self.places, self.weights = own, other, tuple(places), dict(weights or {})

    def plain(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config without the checkpoints it starts from."""
        return {key: value for key, value in config.items() if key != "weights"}

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """Streams of copies of `backbone`."""
        reason = backbone.declaration().cannot_branch
        if reason:
            raise ValueError(
                f"{type(self).__name__}: {type(backbone).__name__} cannot be run as one stream per task: "
                f"{reason}. Leave the adapter before it out."
            )

        def make(names: Sequence[str], channels: int) -> nn.Module:
            return self.unit(names, channels, own=self.own, other=self.other)

        return Streams(backbone, [task.name for task in tasks], self.places, make)

    def complete(self, network: Network) -> None:
        """Load the single-task networks."""
        for task in self.weights:
            if task not in network.task_names:
                raise UnknownNameError("task in weights", task, network.task_names)
        if torch.get_default_device().type == "meta":
            return
        for task, path in self.weights.items():
            load_stream(network, task, Path(path))


def load_stream(network: Network, task: str, path: Path) -> None:
    """Put a single-task network's weights into the stream, decoder and head of its task.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is of another backbone, decoder or head.
    """
    given = {key.removeprefix("network."): value for key, value in read_tensors(path).items()}
    stream = f"backbone.streams.{task}."
    state = {
        stream + key.removeprefix("backbone.") if key.startswith("backbone.") else key: value
        for key, value in given.items()
        if key.startswith(("backbone.", "decoder.", "heads."))
    }
    target = network.state_dict()
    unfit = [key for key, value in state.items() if key not in target or target[key].shape != value.shape]
    missing = [key for key in target if key.startswith((stream, f"heads.{task}.")) and key not in state]
    if unfit or missing:
        raise ValueError(
            f"{path}: not a single-task network of {task} with this backbone, decoder and head: "
            f"{len(unfit)} tensors do not fit ({', '.join(unfit[:3])}), {len(missing)} are missing "
            f"({', '.join(missing[:3])}). Train the same config with tasks=['{task}'] and without adapters."
        )
    network.load_state_dict(state, strict=False)


@ADAPTERS.register_module()
class CrossStitch(StreamsAdapter):
    """One backbone per task with Cross-Stitch units (Misra et al., CVPR 2016), one weight per channel.

    Defaults are the survey's for NYUD; PASCAL has `own=0.8, other=0.05`. Its units learn 100 times as fast:
    `optimizer.lr_factors={"backbone.fusions.*": 100}`.
    """

    unit = CrossStitchUnit


@ADAPTERS.register_module()
class NDDR(StreamsAdapter):
    """One backbone per task with neural discriminative dimensionality reduction (Gao et al., CVPR 2019).

    Published on ResNets with `places=["model.maxpool", "levels"]` and units that learn 100 times as fast:
    `optimizer.lr_factors={"backbone.fusions.*": 100}`.
    """

    unit = NDDRUnit
