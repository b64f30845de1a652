"""`export_network`: write a file, read it back, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtvision import __version__
from mtvision.core.naming import look_up
from mtvision.evaluation.export.formats import FORMATS, Format
from mtvision.evaluation.export.parity import Parity, compare, trial_shapes
from mtvision.evaluation.export.portable import Portable
from mtvision.models.network import Network


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Args:
        path: of the file.
        raw: tasks whose output is logits.
        parity: every output at every size that was tried.
    """

    path: Path
    raw: tuple[str, ...]
    parity: tuple[Parity, ...]

    @property
    def holds(self) -> bool:
        """Whether the file gives what the network gives."""
        return all(item.holds for item in self.parity)


def export_network(
    network: Network,
    path: str | Path,
    *,
    form: str = "onnx",
    tasks: Sequence[str] | None = None,
    logits: bool = False,
    size: tuple[int, int] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a network for other programs and compare what the file gives.

    Args:
        network: in evaluation mode, on the CPU.
        path: of the file, with the ending of the format.
        form: a key of `FORMATS`.
        tasks: outputs, by default all.
        logits: logits instead of predictions.
        size: (H, W) of all images, for networks made for one size; None = any.
        notes: JSON values that the file holds as well, such as `config`.

    Raises:
        UnknownNameError: no such format.
        ValueError: another ending.
        ExportError: the network cannot be written in this format, or a package is not installed.
    """
    chosen: Format = look_up("export format", form, FORMATS)
    path = Path(path)
    if path.suffix != chosen.ending:
        raise ValueError(f"{path}: expected a name that ends in {chosen.ending} for format {form}.")
    portable = Portable(network, tasks, logits=logits)
    chosen.write(portable, path, {**_about(portable), **(notes or {})}, size)
    found = compare(portable, chosen.read(path, portable), trial_shapes(portable, size))
    return Exported(path, tuple(sorted(portable.raw)), tuple(found))


def _about(portable: Portable) -> dict[str, Any]:
    """What a reader of the file has to know."""
    outputs = {
        task.name: "logits" if task.name in portable.raw else task.activation for task in portable.tasks
    }
    return {"version": __version__, "image": "uint8 RGB (B, 3, H, W)", "outputs": outputs}
