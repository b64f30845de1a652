"""`mtvision train CONFIG`."""

from __future__ import annotations

from collections.abc import Sequence

from mtvision.cli.common import make_parser, read_config, work_dir_of
from mtvision.recipe.check import TO_TRAIN

DESCRIPTION = """\
Train a config, evaluate the last checkpoint and write to the work dir:
  config.py         the completed config          losses.jsonl   every step's losses
  iter_*.pth        checkpoints                   record.json    the result, with everything to reproduce it
  table.md          the result as a table         pictures/      predictions beside labels

One process:     python tools/train.py CONFIG
Eight GPUs:      torchrun --nproc_per_node=8 tools/train.py CONFIG
Interrupted:     the same command with --resume

Exit code 1: the run is done, but a part of the record (cost, constant predictor, …) could not be measured or
written. What fails after the record (table, pictures, loggers) is said and recorded, with exit code 0.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("train", DESCRIPTION)
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier run in the work dir")
    arguments = parser.parse_args(argv)
    config = read_config(arguments, TO_TRAIN)
    from mtvision.engine.records import require_whole
    from mtvision.engine.training import train
    from mtvision.runtime.launch import start_processes, stop_processes

    start_processes(arguments.launcher)
    try:
        record = train(
            config,
            work_dir_of(arguments),
            resume=arguments.resume,
            overwrite=arguments.overwrite,
        )
        require_whole(record)
    finally:
        stop_processes()
    return 0
