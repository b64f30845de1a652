"""`mtvision surgery CONFIG MERGED --parents TASK=CHECKPOINT ... --out FILE`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtvision.cli.common import make_parser, numeric, read_config, spare_inputs
from mtvision.cli.procedures.merge import checkpoints_of
from mtvision.core.random import HELD_OUT_SHARE
from mtvision.core.values import Part, Positive, Rate
from mtvision.share.source import find_source

DESCRIPTION = """\
Correct the features of a merged network (Representation Surgery). CONFIG is that of the merged network with
dict(type='Surgery') as the last of model.adapters. Held-out training images are read without labels.

  mtvision surgery CONFIG merged.pth --parents semseg=A.pth depth=B.pth --out corrected.pth
  mtvision test CONFIG corrected.pth
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("surgery", DESCRIPTION, ("seed",), checkpoint="needed")
    parser.add_argument(
        "--parents", nargs="+", required=True, metavar="TASK=CHECKPOINT", help="one network per task"
    )
    parser.add_argument("--out", required=True, type=Path, help="the checkpoint to write")
    parser.add_argument("--steps", type=numeric(Positive), default=1000, help="per task (default: 1000)")
    parser.add_argument("--lr", type=numeric(Rate), default=1e-3, help="of Adam (default: 0.001)")
    parser.add_argument(
        "--held-out", type=numeric(Part), default=HELD_OUT_SHARE, metavar="SHARE",
        help=f"share of the training images that are read (default: {HELD_OUT_SHARE})",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    parents = checkpoints_of("--parents", arguments.parents)
    merged = find_source(arguments.checkpoint).file
    spare_inputs("--out", arguments.out, [arguments.config, merged, *parents.values()])
    config = read_config(arguments, ("model", "train_data"))
    from mtvision.procedures.surgery import SurgeryRequest, operate

    request = SurgeryRequest(
        merged=Path(merged),
        parents=parents,
        out=arguments.out,
        steps=arguments.steps,
        lr=arguments.lr,
        held_out=arguments.held_out,
    )
    for task, (first, last) in operate(config, request).items():
        print(f"{task}: difference of features {first:.4g}, after training {last:.4g}")
    print(f"written: {arguments.out}")
    return 0
