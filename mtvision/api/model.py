"""A trained network with everything that it needs to predict: `mtvision.load`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from mtvision.api.opened import OpenCheckpoint, open_checkpoint
from mtvision.api.result import Result
from mtvision.core.context import Context
from mtvision.core.task import Task
from mtvision.evaluation.predict.values import Given, read_given
from mtvision.evaluation.predictor import Predictor
from mtvision.models.network import Network
from mtvision.protocols import Protocol
from mtvision.recipe.config import RunConfig
from mtvision.report.cost import measure_cost
from mtvision.runtime.precision import Precision
from mtvision.search.width_table import WidthTable
from mtvision.share.weights import KEPT, save_shared

if TYPE_CHECKING:
    import torch

    from mtvision.evaluation.export import Exported


class Model:
    """A network, its config and its tasks. `mtvision.load` makes it from a checkpoint.

    Args:
        network: moved to `device`, in evaluation mode.
        config: what it was built from.
        protocol: its tasks and sizes.
        meta: what its checkpoint says of itself.
        source: where it comes from, for messages.
        device: where to compute.
        precision: of the forward pass.
        size: (H, W) whose area images are scaled to; None = that of its protocol.
        tile: (H, W) of tiles in which pictures are predicted at their own resolution; None = whole pictures.
        overlap: pixels that tiles share, see `mtvision.evaluation.predictor.Predictor`.

    Attributes:
        predictor: what `predict` calls, see `mtvision.evaluation.predictor.Predictor`.

    >>> import numpy as np, mtvision
    >>> model = mtvision.load("demo", tasks=["depth"])
    >>> result = model.predict(np.zeros((48, 64, 3), np.uint8))
    >>> result["depth"].shape
    (1, 48, 64)
    """

    def __init__(
        self,
        network: Network,
        config: RunConfig,
        protocol: Protocol,
        *,
        meta: Mapping[str, Any] | None = None,
        source: str = "",
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
        size: tuple[int, int] | None = None,
        tile: tuple[int, int] | None = None,
        overlap: int | None = None,
    ) -> None:
        self.config, self.protocol, self.source = config, protocol, source
        self.meta = dict(meta or {})
        table = self.meta.get("width_table")
        self.predictor = Predictor(
            network,
            protocol,
            size=size,
            device=device,
            precision=precision,
            width_table=WidthTable.from_plain(table) if table else None,
            tile=tile,
            overlap=overlap,
        )

    @property
    def network(self) -> Network:
        """The `torch.nn.Module`."""
        return self.predictor.network

    @property
    def tasks(self) -> dict[str, Task]:
        """{name: task} of what it predicts, in the protocol's order."""
        return {task.name: task for task in self.protocol.tasks}

    @overload
    def predict(
        self,
        pictures: Given,
        *,
        batch: int = 1,
        budget: float | None = None,
        preference: Mapping[str, float] | None = None,
    ) -> Result: ...

    @overload
    def predict(
        self,
        pictures: list[Any] | tuple[Any, ...],
        *,
        batch: int = 1,
        budget: float | None = None,
        preference: Mapping[str, float] | None = None,
    ) -> list[Result]: ...

    def predict(
        self,
        pictures: Given | list[Any] | tuple[Any, ...],
        *,
        batch: int = 1,
        budget: float | None = None,
        preference: Mapping[str, float] | None = None,
    ) -> Result | list[Result]:
        """Predict all tasks of a picture, or of each of several.

        Args:
            pictures: a path or http(s) address, a NumPy array, a tensor or a picture of Pillow. A list of
                these may also name folders and globs. Arrays are RGB (H, W, 3) of uint8, or of reals in 0..1;
                tensors are (3, H, W). Gray ones (H, W) get three equal channels.
            batch: how many pass the network together.
            budget: of a slimmable network, see `mtvision.evaluation.predictor.Predictor.batch`.
            preference: {task: weight}, how much each task matters, of a network with a manifold of
                preferences (docs/pareto.md) or a slimmable one; None = all alike.

        Returns:
            A result, or a list of them in the same order.

        Raises:
            FileNotFoundError, DecodeError: a picture that cannot be read.
            TypeError, ValueError: something else than a picture, or a budget or preference of a network that
                has none.
            UnknownNameError: a preference of no task.
        """
        alone = not isinstance(pictures, list | tuple)
        read = read_given(pictures if isinstance(pictures, list | tuple) else [pictures], many=not alone)
        context = None
        if budget is not None or preference is not None:
            context = self.predictor.conditioned(Context(), budget, preference)
        results = []
        for start in range(0, len(read), max(batch, 1)):
            part = read[start : start + max(batch, 1)]
            images = [item.image() for item in part]
            for item, image, maps in zip(part, images, self.predictor.batch(images, context), strict=True):
                results.append(Result(image, maps, self.protocol.tasks, name=item.name))
        return results[0] if alone else results

    def cost(self, shape: tuple[int, int] | None = None, *, latency: bool = False) -> dict[str, Any]:
        """Parameters, multiply-accumulates and memory for one image.

        Args:
            shape: (H, W) of the image; None = the protocol's size.
            latency: measure time too.

        Returns:
            Plain data, see `mtvision.report.cost.measure_cost`.

        Raises:
            ValueError: the protocol has no size, and none is given.
        """
        size = cost_shape(self.protocol, shape)
        return measure_cost(
            self.network,
            size,
            tasks=list(self.tasks),
            latency=latency,
            device=str(self.predictor.device),
        )

    def save(self, path: str | Path, *, licence: str | None = None, half: bool = False) -> Path:
        """Write weights, config, tasks, protocol and licence as one safetensors file.

        Args:
            path: of the file; `.safetensors`.
            licence: SPDX name of the weights' licence, e.g. `CC-BY-4.0`.
            half: store weights in 16 bits.

        Raises:
            ValueError: another ending.
            OSError: it cannot be written.
        """
        return save_shared(Path(path), self.network.state_dict(), self._notes(licence), half=half)

    def export(
        self,
        path: str | Path,
        *,
        form: str = "onnx",
        tasks: Sequence[str] | None = None,
        logits: bool = False,
        size: tuple[int, int] | None = None,
    ) -> Exported:
        """Write the network for other programs, read the file back, and compare what it gives.

        Args:
            path: of the file, with the ending of the format.
            form: `onnx`, `pt2` or `safetensors`.
            tasks: outputs, by default all.
            logits: logits instead of predictions.
            size: (H, W) of all images, for networks made for one size; None = any.

        Returns:
            The path and the differences, see `mtvision.evaluation.export.Exported`. Errors are those of
            `mtvision.evaluation.export.export_network`.
        """
        from mtvision.evaluation.export import export_network

        network, notes = self.network, self._notes(None)
        return export_network(network, path, form=form, tasks=tasks, logits=logits, size=size, notes=notes)

    def push_to_hub(self, repository: str, *, licence: str | None = None, private: bool = False) -> str:
        """Upload the network with a model card; returns the address of the commit.

        `mtvision.push_to_hub(FOLDER, …)` also uploads the scores of a run.
        """
        from mtvision.share.hub import push_to_hub
        from mtvision.share.source import SHARED_FILE

        with tempfile.TemporaryDirectory() as folder:
            file = self.save(Path(folder) / SHARED_FILE, licence=licence)
            return push_to_hub(file, repository, private=private)

    def _notes(self, licence: str | None) -> dict[str, Any]:
        kept = {key: self.meta[key] for key in KEPT if key in self.meta}
        own = {
            "config": self.config.text,
            "protocol": self.protocol.id,
            "tasks": list(self.network.task_names),
        }
        return {**kept, **own, **({"licence": licence} if licence else {})}

    def __repr__(self) -> str:
        millions = sum(item.numel() for item in self.network.parameters()) / 1e6
        return (
            f"Model({self.source or self.config.name}: {', '.join(self.tasks)}; {self.protocol.title}, "
            f"{millions:.2f} M parameters)"
        )


def cost_shape(protocol: Protocol, shape: Sequence[int] | None) -> tuple[int, int]:
    """(H, W) for which a network's cost is counted.

    Raises:
        ValueError: neither is known.
    """
    size = shape or protocol.eval_size or protocol.train_size
    if size is None:
        raise ValueError(f"protocol {protocol.id} has no image size of its own; give one: shape=(H, W).")
    return (int(size[0]), int(size[1]))


def model_of(
    opened: OpenCheckpoint,
    *,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    size: tuple[int, int] | None = None,
    tile: tuple[int, int] | None = None,
    overlap: int | None = None,
) -> Model:
    """Build the network of a checkpoint that was read; arguments and errors as `load`."""
    network, meta = opened.network()
    return Model(
        network,
        opened.config,
        opened.protocol,
        meta=meta,
        source=opened.source.text,
        device=device,
        precision=precision,
        size=size,
        tile=tile,
        overlap=overlap,
    )


def load(
    source: str | Path,
    *,
    config: str | Path | RunConfig | None = None,
    options: Sequence[str] = (),
    plugins: Sequence[str] = (),
    tasks: str | Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    size: tuple[int, int] | None = None,
    tile: tuple[int, int] | None = None,
    overlap: int | None = None,
) -> Model:
    """A trained network from a checkpoint alone.

    Args:
        source: a file (`iter_1000.pth`, `model.safetensors`), the folder of a run, whose newest whole
            checkpoint is taken, `demo`, the network that comes with the package, or `hf:owner/name`.
        config: for weights without a config: the one they were trained with.
        options: `key=value`, as `--cfg-options`.
        plugins: modules or files with classes of your own, as `--plugin`.
        tasks: only these.
        device: where to compute.
        precision: of the forward pass: `fp32`, `bf16` or `fp16`.
        size: (H, W) whose area images are scaled to; None = that of the protocol.
        tile: (H, W) of tiles in which pictures are predicted at their own resolution, for pictures larger
            than memory; None = whole pictures.
        overlap: pixels that tiles share at least; None = a quarter of the smaller side.

    Raises:
        FileNotFoundError, CheckpointError, ShareError: no such checkpoint, or it cannot be used.
        ValueError, PluginError, UnknownNameError: mistakes in config, options or tasks.
        TilingError: sizes of tiles that make no sense.

    >>> import mtvision
    >>> mtvision.load("demo", tasks="depth")
    Model(demo: depth; Synthetic scenes (rooms and streets, 96x128), 0.99 M parameters)
    """
    opened = open_checkpoint(source, config=config, options=options, plugins=plugins, tasks=tasks)
    return model_of(opened, device=device, precision=precision, size=size, tile=tile, overlap=overlap)


def from_pretrained(repository: str, *, revision: str | None = None, **options: Any) -> Model:
    """A network of the Hugging Face hub; the same as `load("hf:owner/name@revision")`.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit; None = `main`.
        options: of `load`, whose errors are raised too.
    """
    return load(f"hf:{repository}" + (f"@{revision}" if revision else ""), **options)
