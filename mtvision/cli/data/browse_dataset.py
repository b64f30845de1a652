"""`mtvision browse-dataset CONFIG`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtvision.cli.common import make_parser, numeric, read_config, spare_inputs, texts_in, work_dir_of
from mtvision.core.values import Count, Positive
from mtvision.recipe.settings import protocol_of

DESCRIPTION = """\
Draw a sheet of samples with all their labels, after the config's transforms: what the network is trained on.
Look at it before spending GPU days.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("browse-dataset", DESCRIPTION, ("work-dir", "seed"))
    parser.add_argument("--split", choices=("train", "val", "test"), default="train")
    parser.add_argument(
        "--count", type=numeric(Positive), default=8, help="samples on the sheet (default: 8)"
    )
    parser.add_argument(
        "--epoch", type=numeric(Count), default=0, help="which epoch's augmentation to show (default: 0)"
    )
    parser.add_argument("--out", type=Path, help="PNG to write (default: <work-dir>/<split>.png)")
    arguments = parser.parse_args(argv)
    section = f"{arguments.split}_data"
    config = read_config(arguments, (section,))
    spare_inputs("--out", arguments.out, [arguments.config, *texts_in(config[section])])
    protocol = protocol_of(config)
    from mtvision.core.sample import SampleKey
    from mtvision.recipe.data import build_dataset
    from mtvision.visualize import sheet, write_picture

    dataset = build_dataset(section, config[section], protocol, config["seed"])
    count = min(arguments.count, len(dataset))
    step = max(len(dataset) // count, 1)
    samples = [dataset[SampleKey(arguments.epoch, index * step)] for index in range(count)]
    path = arguments.out or work_dir_of(arguments) / f"{arguments.split}.png"
    write_picture(path, sheet(samples, protocol.tasks))
    print(f"{count} of {len(dataset)} samples: {path}")
    return 0
