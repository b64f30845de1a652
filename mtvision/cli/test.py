"""`mtvision test CONFIG CHECKPOINT`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mtvision.cli.common import (
    STDOUT,
    config_of,
    make_parser,
    read_with,
    spare_inputs,
    work_dir_of,
    write_json,
)
from mtvision.evaluation.formats import FORMATS
from mtvision.recipe.config import RunConfig
from mtvision.recipe.settings import protocol_of

if TYPE_CHECKING:
    from mtvision.evaluation.prediction_files import PredictionWriter


DESCRIPTION = """\
Score a checkpoint on the config's test data (or another split) with the protocol's full metrics.
Instead of CONFIG CHECKPOINT, a checkpoint alone is enough: it holds its config.

Writes record.json, table.md and pictures/ into the work dir. The record of a training in there is kept: then
the result of another checkpoint, config or split goes to test_CHECKPOINT/ in it. A line says what differs.
The seed is that of the training, which the checkpoint knows.
Prints a table; --json FILE ("-" for standard output) writes the record for programs.

--save-predictions DIR keeps every prediction as DIR/<task>/<image id>.png or .npy; `mtvision score DIR` gives
the same scores from these files. An interrupted run continues where it stopped.

Exit code 1: a part of the record (cost, constant predictor, …) or a file asked for could not be made.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("test", DESCRIPTION, ("work-dir", "seed", "launcher", "amp"), checkpoint="alone")
    parser.set_defaults(amp_of="evaluation")
    parser.add_argument(
        "--split", choices=("test", "val"), default="test", help="which data section (default: test)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the record here as well; - prints only JSON"
    )
    parser.add_argument("--save-predictions", type=Path, metavar="DIR", help="keep every prediction there")
    parser.add_argument(
        "--prediction-format",
        choices=FORMATS,
        default="exact",
        help="exact: lossless; 8bit: probabilities of boundaries and saliency as 8-bit PNG, for other tools",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="throw away other predictions in --save-predictions"
    )
    arguments = parser.parse_args(argv)
    read_with(parser, arguments, "save_predictions", "prediction_format", "overwrite")
    config, checkpoint = config_of(arguments, ("model", "test_data or val_data"))
    if checkpoint is None:
        parser.error(f"{arguments.config} is a config; give a CHECKPOINT behind it, or a checkpoint alone")
    spare_inputs("--json", arguments.json, [arguments.config, checkpoint])
    from mtvision.engine.evaluate import evaluate_checkpoint, spare_training, with_trained_seed
    from mtvision.engine.records import require_whole
    from mtvision.runtime.attempts import Attempts
    from mtvision.runtime.launch import is_main_process, joined, threads
    from mtvision.runtime.progress import messages

    with joined(arguments.launcher):
        config = with_trained_seed(config, checkpoint, arguments.seed)
        writer = _writer(arguments, config, checkpoint) if arguments.save_predictions is not None else None
        section = f"{arguments.split}_data"
        place = spare_training(config, work_dir_of(arguments), checkpoint, section)
        with threads(config["training"]["threads"]):
            record = evaluate_checkpoint(
                config,
                place.folder,
                checkpoint,
                section=section,
                quiet=arguments.json == STDOUT,
                training=place.training,
                save=writer,
            )
        if place.why and is_main_process():
            messages().print(place.why)
        asked = Attempts(quiet=not is_main_process())
        if writer is not None:
            asked.run("manifest of the predictions", writer.finish, "the same command completes it")
        if is_main_process():
            write = partial(write_json, arguments.json, record.to_json())
            asked.run("--json", write, "record.json in the work dir has the same")
        require_whole(record, asked.lines)
    return 0


def _writer(arguments: argparse.Namespace, config: RunConfig, file: str) -> PredictionWriter:
    from mtvision.engine.records import backbone_name
    from mtvision.evaluation.prediction_files import PredictionWriter
    from mtvision.runtime.checkpoint import checkpoint_file
    from mtvision.runtime.whole import file_sha256

    protocol = protocol_of(config)
    checkpoint = checkpoint_file(file)
    if not checkpoint.is_file():
        raise FileNotFoundError(f"checkpoint {checkpoint} does not exist.")
    split = arguments.split if config[f"{arguments.split}_data"] else "val"
    identity = {
        "protocol": protocol.id,
        "split": split,
        "method": config.name,
        "backbone": backbone_name(config),
        "checkpoint": {"file": checkpoint.name, "sha256": file_sha256(checkpoint)},
    }
    return PredictionWriter(
        arguments.save_predictions,
        protocol.tasks,
        identity=identity,
        file_format=arguments.prediction_format,
        overwrite=arguments.overwrite,
    )
