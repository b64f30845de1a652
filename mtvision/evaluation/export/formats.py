"""Formats of exported networks: how each is written, and how a file of it is run."""

# ruff: noqa: ARG001  functions of one kind share their arguments

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtvision.evaluation.export.portable import INPUT, ExportError, Portable, trace
from mtvision.models.weights_file import write_weights
from mtvision.runtime.atomic import atomic_path
from mtvision.runtime.checkpoint import NOTES, load_checkpoint, load_network_weights

Run = Callable[[Tensor], dict[str, Tensor]]
"""uint8 images (B, 3, H, W) to {task: map}."""
_LARGEST = 2_000_000_000
"""Bytes of a single ONNX file."""


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Args:
        ending: of its files.
        about: what it is for.
        write: (network, path, notes, size) to a file.
        read: (path, network) to a function that runs the file; the network gives names and, for weights, the
            structure.
    """

    ending: str
    about: str
    write: Callable[[Portable, Path, Mapping[str, Any], tuple[int, int] | None], None]
    read: Callable[[Path, Portable], Run]


def _write_onnx(
    portable: Portable, path: Path, notes: Mapping[str, Any], size: tuple[int, int] | None
) -> None:
    _require("onnx", "onnxscript")
    weight = sum(item.numel() * item.element_size() for item in portable.parameters())
    if weight > _LARGEST:
        raise ExportError(
            f"{path}: weights of {weight / 1e9:.1f} GB, one ONNX file holds 2. Use --format pt2."
        )
    names = [task.name for task in portable.tasks]
    from mtvision.ops.scan.onnx_form import onnx_forms

    program = trace(portable, size, own_operators=True)
    try:
        made: Any = torch.onnx.export(
            program,
            (),
            None,
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=names,
            custom_translation_table=onnx_forms(),
        )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise ExportError(f"{path}: no ONNX form: {str(cause).splitlines()[0]} Use --format pt2.") from error
    made.model.metadata_props[NOTES] = json.dumps(dict(notes), sort_keys=True)
    with atomic_path(path) as temporary:
        made.save(str(temporary))


def _read_onnx(path: Path, portable: Portable) -> Run:
    _require("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]

    def run(image: Tensor) -> dict[str, Tensor]:
        found = session.run(None, {INPUT: image.numpy()})
        return {name: torch.from_numpy(item) for name, item in zip(names, found, strict=True)}

    return run


def _write_program(
    portable: Portable, path: Path, notes: Mapping[str, Any], size: tuple[int, int] | None
) -> None:
    program = trace(portable, size)
    extra = {f"{NOTES}.json": json.dumps(dict(notes), sort_keys=True)}
    with atomic_path(path, suffix=".pt2") as temporary:
        torch.export.save(program, temporary, extra_files=extra)


def _read_program(path: Path, portable: Portable) -> Run:
    # The guards repeat the example's batch (more than one image), which the graph does not depend on.
    module = torch.export.load(path).module(check_guards=False)

    def run(image: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            return dict(module(image))

    return run


def _write_weights(
    portable: Portable, path: Path, notes: Mapping[str, Any], size: tuple[int, int] | None
) -> None:
    write_weights(path, portable.network.state_dict(), notes)


def _read_weights(path: Path, portable: Portable) -> Run:
    from copy import deepcopy

    other = deepcopy(portable)
    with torch.no_grad():
        for item in other.network.parameters():
            item.zero_()
    load_network_weights(other.network, load_checkpoint(path), path)

    def run(image: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            found: dict[str, Tensor] = other(image)
        return found

    return run


FORMATS = {
    "onnx": Format(".onnx", "ONNX Runtime and other programs", _write_onnx, _read_onnx),
    "pt2": Format(".pt2", "PyTorch without this package", _write_program, _read_program),
    "safetensors": Format(
        ".safetensors", "weights and config, for this package", _write_weights, _read_weights
    ),
}
"""{name: format}"""


def _require(*packages: str) -> None:
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        raise ExportError(
            f"ONNX needs {' and '.join(absent)}, which is not installed: pip install 'mtvision[export]'."
        )
