"""`mtvision export CHECKPOINT --format onnx|pt2|safetensors --out FILE`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtvision.cli.common import add_plugin_option, numeric, spare_inputs
from mtvision.core.values import Positive

DESCRIPTION = """\
Write a trained network for other programs, read the file back, and compare the outputs.

  onnx          ONNX Runtime and other programs
  pt2           PyTorch without this package (torch.export.load)
  safetensors   weights and config, for `mtvision predict` and others

ONNX and pt2 take RGB images, uint8 (B, 3, H, W), of any batch and size. Normalisation is inside. The outputs
have the tasks' names: class ids, unit vectors, probabilities, or logits with --logits. A network made for one
image size needs --size. The exit code is 1 if the file gives something else than the network.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = _parser().parse_args(argv)

    from mtvision.api.model import load
    from mtvision.evaluation.export import FORMATS

    ending = FORMATS[arguments.format].ending
    path = arguments.out or Path(arguments.checkpoint.removeprefix("hf:")).with_suffix(ending)
    spare_inputs("--out", path, [arguments.checkpoint, arguments.config])
    if path.exists() and not arguments.overwrite:
        raise FileExistsError(f"{path} exists. Name another file with --out, or give --overwrite.")
    model = load(
        arguments.checkpoint,
        config=arguments.config,
        options=arguments.cfg_options,
        plugins=arguments.plugin,
    )
    exported = model.export(
        path,
        form=arguments.format,
        tasks=arguments.tasks.split(",") if arguments.tasks else None,
        logits=arguments.logits,
        size=tuple(arguments.size) if arguments.size else None,
    )
    for name in exported.raw if not arguments.logits else ():
        print(f"{name}: logits, because its post-processing depends on values and has no graph")
    for item in exported.parity:
        print(item)
    print(f"written: {exported.path} ({exported.path.stat().st_size / 1e6:.1f} MB)")
    return 0 if exported.holds else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtvision export",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", help="a trained network: a file, the folder of a run, hf:owner/name or demo"
    )
    parser.add_argument("--format", choices=("onnx", "pt2", "safetensors"), default="onnx", help="see above")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: the checkpoint's name, with the format's ending",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier file")
    parser.add_argument("--tasks", metavar="TASK,…", help="outputs, e.g. depth,normals (default: all)")
    parser.add_argument("--logits", action="store_true", help="logits instead of predictions")
    parser.add_argument(
        "--size", nargs=2, type=numeric(Positive), metavar=("H", "W"), help="one image size only"
    )
    parser.add_argument("--config", help="for checkpoints that hold none: the config they were trained with")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change values of the config"
    )
    add_plugin_option(parser)
    return parser
