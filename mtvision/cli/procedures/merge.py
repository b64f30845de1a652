"""`mtvision merge CONFIG --base BASE --parents TASK=CHECKPOINT ... --method NAME --out FILE`."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtvision.cli.common import make_parser, numeric, read_config, spare_inputs
from mtvision.core.random import HELD_OUT_SHARE
from mtvision.core.values import Count, Part, Rate
from mtvision.share.source import find_source

DESCRIPTION = """\
Merge single-task networks that were fine-tuned from the same weights. CONFIG describes the network of all
tasks. What several tasks share is merged; decoders and heads of one task come from its own checkpoint.

  mtvision merge CONFIG --base pretrained --parents semseg=A.pth depth=B.pth --method task_arithmetic \\
      --option scale=0.3 --recalibrate 100 --out merged.pth
  mtvision test CONFIG merged.pth

Methods that learn read the held-out slice of CONFIG's training images:

  mtvision merge CONFIG --base pretrained --parents semseg=A.pth depth=B.pth --method adamerging \\
      --option steps=500 lr=0.001 --out merged.pth

`mtvision list mergers` names the methods, `mtvision show merger NAME` their options.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("merge", DESCRIPTION, ("seed",))
    _add_arguments(parser)
    arguments = parser.parse_args(argv)
    options = options_of(arguments.option)
    parents = checkpoints_of("--parents", arguments.parents)
    needs = ("model", "train_data") if arguments.recalibrate else ("model",)
    config = read_config(arguments, needs)
    from mtvision.procedures.merging import PRETRAINED, MergeRequest, merge_checkpoints

    base = arguments.base if arguments.base == PRETRAINED else find_source(arguments.base).file
    spare_inputs("--out", arguments.out, [arguments.config, base, *parents.values()])
    request = MergeRequest(
        base=base,
        parents=parents,
        method=arguments.method,
        options=options,
        out=arguments.out,
        images=arguments.recalibrate,
        limit=arguments.limit,
        held_out=arguments.held_out,
    )
    done = merge_checkpoints(config, request)
    for task, value in done.distances.relative.items():
        print(f"{task}: {value:.3f} of the base's length away from it")
    for (one, other), value in done.distances.cosines.items():
        print(f"cosine of {one} and {other}: {value:.3f}")
    print("tensors: " + ", ".join(f"{part} {count}" for part, count in done.parts.items()))
    if done.learned is not None:
        count = done.learned["held_out"]["images"]
        print(f"learned from {count} held-out training images{_of_losses(done.learned)}")
    if done.norms is not None:
        print(f"batch norms with new statistics: {done.norms}")
    print(f"written: {arguments.out}")
    return 0


def options_of(words: Sequence[str]) -> dict[str, Any]:
    """Options of a method from `NAME=VALUE`; values are Python literals where they read as such."""
    return {name: _value(text) for name, text in pairs_of("--option", words).items()}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base",
        required=True,
        metavar="CHECKPOINT",
        help="the weights that all parents were fine-tuned from; `pretrained`: those that CONFIG names",
    )
    parser.add_argument(
        "--parents", nargs="+", required=True, metavar="TASK=CHECKPOINT", help="one network per task"
    )
    parser.add_argument(
        "--method", default="average", help="how shared weights are merged (default: average)"
    )
    parser.add_argument(
        "--option",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the method, e.g. scale=0.3 \"coefficients={'backbone.*': 0.2}\"",
    )
    parser.add_argument(
        "--recalibrate",
        nargs="?",
        type=numeric(Count),
        const=100,
        default=0,
        metavar="IMAGES",
        help="compute statistics of batch norms anew, on that many training images (default 100)",
    )
    parser.add_argument(
        "--limit",
        type=numeric(Rate),
        default=1.0,
        metavar="RATIO",
        help="refuse a parent whose distance to the base is this part of the base's length (default 1.0)",
    )
    parser.add_argument(
        "--held-out",
        type=numeric(Part),
        default=HELD_OUT_SHARE,
        metavar="SHARE",
        help=f"share of the training images that methods learn from (default {HELD_OUT_SHARE})",
    )
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write")


def _of_losses(learned: Mapping[str, Any]) -> str:
    losses = learned.get("losses")
    return f": {learned['updates']} updates, loss {losses[0]:.4f} to {losses[-1]:.4f}" if losses else ""


def pairs_of(option: str, texts: Sequence[str]) -> dict[str, str]:
    """{NAME: VALUE} of `NAME=VALUE`, given with an option."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not name or not value:
            raise ValueError(f"{option}: expected NAME=VALUE, got {text!r}.")
        if name in pairs:
            raise ValueError(f"{option}: '{name}' is given twice.")
        pairs[name] = value
    return pairs


def checkpoints_of(option: str, texts: Sequence[str]) -> dict[str, str]:
    """{TASK: file} of `TASK=CHECKPOINT`, where a checkpoint may be the folder of a run, `demo`, ..."""
    return {name: find_source(text).file for name, text in pairs_of(option, texts).items()}


def _value(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
