"""A network as one function of an 8-bit image, and that function as a graph of PyTorch's own operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from timm.layers import padding
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mtvision.core.naming import ReportedError
from mtvision.core.prediction import to_prediction
from mtvision.core.sample import IMAGE_MEAN, IMAGE_STD
from mtvision.core.task import Task
from mtvision.models.network import Network
from mtvision.ops import use_backend

INPUT = "image"
"""Name of the input."""


class ExportError(ReportedError, RuntimeError):
    """A network that cannot be written in a format; the message names the cause."""


class Portable(nn.Module):
    """RGB image, uint8 (B, 3, H, W), to one map per task. Normalisation and post-processing are inside.

    Args:
        network: in evaluation mode.
        tasks: names of the outputs, by default all of the network.
        logits: give logits instead of predictions.

    Attributes:
        raw: tasks whose logits are given: all with `logits`, else those whose post-processing cannot be
            traced, such as the grouping of instances.
    """

    def __init__(self, network: Network, tasks: Sequence[str] | None = None, *, logits: bool = False) -> None:
        super().__init__()
        self.network = network
        self.asked = None if tasks is None else tuple(tasks)
        self.tasks = [task for task in network.tasks if self.asked is None or task.name in self.asked]
        self.raw = frozenset(task.name for task in self.tasks if logits or not _is_traceable(task))
        for name, values in (("mean", IMAGE_MEAN), ("std", IMAGE_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """{task: prediction as `mtvision.core.prediction.to_prediction` makes it, or logits}."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        logits = self.network((image.float() / 255 - mean) / std, self.asked)
        return {
            task.name: logits[task.name] if task.name in self.raw else to_prediction(task, logits[task.name])
            for task in self.tasks
        }

    def example_size(self) -> tuple[int, int]:
        """(H, W) of a small image whose maps have more than one pixel at every level."""
        height, width = self.network.backbone.trial_size()
        return 2 * height, 2 * width


def trace(
    portable: Portable, size: tuple[int, int] | None = None, *, own_operators: bool = False
) -> ExportedProgram:
    """The graph of a network, with a free batch and, without `size`, free height and width.

    Args:
        portable: the network.
        size: (H, W) of all images; None = any.
        own_operators: keep this package's operators (the selective scans), which only this package can run.

    Raises:
        ExportError: it cannot be traced; networks made for one size need `size`.
    """
    height, width = size or portable.example_size()
    image = torch.randint(256, (2, 3, height, width), dtype=torch.uint8)
    free = {0: Dim.DYNAMIC} if size else {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    try:
        with torch.no_grad(), use_backend("auto" if own_operators else "graph"), _integer_padding():
            return torch.export.export(portable, (image,), dynamic_shapes=(free,), strict=False)
    except (RuntimeError, ValueError, AssertionError) as error:
        advice = "" if size else " A network made for one image size needs it: --size H W."
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"the network cannot be traced: {cause}{advice}") from error


def same_padding(size: int, kernel_size: int, stride: int, dilation: int) -> int:
    """Pixels that "SAME" padding adds to a side of `size` pixels, as timm's `get_same_padding` counts them.

    `⌈size / stride⌉ · stride - size` is a remainder, so nothing is divided.

    Example: `same_padding(5, 3, 2, 1)` is 2.
    """
    return max(-size % stride + (kernel_size - 1) * dilation + 1 - stride, 0)


@contextmanager
def _integer_padding() -> Iterator[None]:
    """While tracing, timm's "SAME" padding of a free size is one remainder.

    Its own formula rounds a quotient of floats up. PyTorch's solver takes minutes over a chain of those.
    """
    before = padding.get_same_padding
    padding.get_same_padding = same_padding  # type: ignore[assignment]  # sizes may be symbols
    try:
        yield
    finally:
        padding.get_same_padding = before


def _is_traceable(task: Task) -> bool:
    """Whether a task's post-processing is one graph whatever the values are."""

    class Activation(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            return to_prediction(task, logits)

    try:
        torch.export.export(Activation(), (torch.zeros(1, task.out_channels, 8, 8),), strict=False)
    except RuntimeError:
        return False
    return True
