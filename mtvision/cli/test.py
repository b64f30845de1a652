"""`mtvision test CONFIG CHECKPOINT`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mtvision.cli.common import make_parser, read_config, work_dir_of
from mtvision.engine.launch import is_main_process, start_processes, stop_processes
from mtvision.engine.training import evaluate_checkpoint

DESCRIPTION = """\
Score a checkpoint on the config's test data (or another split) with the protocol's full metrics.
Prints a table; --json FILE ("-" for standard output) writes the record for programs.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("test", DESCRIPTION, checkpoint=True)
    parser.add_argument(
        "--split", choices=("test", "val"), default="test", help="which data section (default: test)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the record here as well; - prints only JSON")
    arguments = parser.parse_args(argv)
    start_processes(arguments.launcher)
    try:
        record = evaluate_checkpoint(
            read_config(arguments),
            work_dir_of(arguments),
            arguments.checkpoint,
            section=f"{arguments.split}_data",
            quiet=arguments.json == "-",
        )
        if arguments.json and is_main_process():
            text = json.dumps(record.to_json(), indent=2)
            if arguments.json == "-":
                print(text)
            else:
                Path(arguments.json).write_text(text + "\n")
    finally:
        stop_processes()
    return 0
