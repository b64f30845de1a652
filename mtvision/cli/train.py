"""`mtvision train CONFIG`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtvision.cli.common import make_parser, read_config, work_dir_of
from mtvision.recipe.check import TO_TRAIN
from mtvision.recipe.config import RunConfig
from mtvision.runtime.signals import listening

DESCRIPTION = """\
Train a config, evaluate the last checkpoint and write to the work dir:
  config.py         the completed config          losses.jsonl   every step's losses
  iter_*.pth        checkpoints                   record.json    the result, with everything to reproduce it
  table.md          the result as a table         pictures/      predictions beside labels
  metrics.jsonl     means and evaluations         train.log      what was said
  checkpoints.json  SHA-256 of the checkpoints    attempts/      hours, hosts, versions of every process

One process:     python tools/train.py CONFIG
Eight GPUs:      torchrun --nproc_per_node=8 tools/train.py CONFIG
Whatever is there: the same command with --resume starts, continues, or says that all is done

Exit code 1: the run is done, but a part of the record (cost, constant predictor, …) could not be measured or
written. What fails after the record (table, pictures, loggers) is said and recorded, with exit code 0.
Exit code 75: stopped by SIGTERM, SIGUSR1, SIGUSR2, SIGHUP or before a time limit, with a checkpoint; 130: by
SIGINT. The same command with --resume continues. A second signal ends the run at once.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("train", DESCRIPTION, ("work-dir", "seed", "launcher", "amp", "resume"))
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier run in the work dir")
    parser.add_argument(
        "--keep-batch",
        action="store_true",
        help="with --resume on another number of processes: as many images per step as before",
    )
    arguments = parser.parse_args(argv)
    with listening():  # imports and reading the config take seconds, too
        return _train(arguments)


def _train(arguments: argparse.Namespace) -> int:
    config = read_config(arguments, TO_TRAIN)
    from mtvision.engine.records import require_whole
    from mtvision.engine.training import train
    from mtvision.runtime.launch import joined

    with joined(arguments.launcher):
        if arguments.keep_batch:
            config = _with_kept_batch(config, arguments)
        record = train(
            config,
            work_dir_of(arguments),
            resume=arguments.resume,
            overwrite=arguments.overwrite,
        )
        require_whole(record)
    return 0


def _with_kept_batch(config: RunConfig, arguments: argparse.Namespace) -> RunConfig:
    """The config with the images per step of the checkpoint that the run continues from, if there is one."""
    from mtvision.engine.building import with_kept_batch
    from mtvision.runtime.checkpoint import CheckpointError, find_checkpoint, load_checkpoint
    from mtvision.runtime.launch import rank_and_world_size

    if arguments.resume is None:
        raise ValueError("--keep-batch belongs to --resume: a new run takes the batch of its config.")
    try:
        automatic = arguments.resume == "auto"
        path = find_checkpoint(work_dir_of(arguments)) if automatic else Path(arguments.resume)
    except CheckpointError:  # nothing to keep: the run starts, or `train` says what is wrong
        return config
    batches = load_checkpoint(path)["meta"].get("batches")
    return with_kept_batch(config, batches, rank_and_world_size()[1]) if batches else config
