"""Arguments that the tools share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtvision.recipe.check import load_checked
from mtvision.recipe.config import RunConfig
from mtvision.runtime.attempts import IncompleteError
from mtvision.runtime.rescue import write_or_rescue


def make_parser(command: str, description: str, *, checkpoint: bool = False) -> argparse.ArgumentParser:
    """Parser with CONFIG, optionally CHECKPOINT, and the options that every tool takes."""
    parser = argparse.ArgumentParser(
        prog=f"mtvision {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config", help="a config file, or the name of a shipped one (`mtvision configs list`)"
    )
    if checkpoint:
        parser.add_argument("checkpoint", help="a checkpoint of that config (.pth or .safetensors)")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change values of the config, e.g. training.iterations=100 optimizer.lr=1e-4; "
        "keys the config does not have are refused",
    )
    parser.add_argument(
        "--work-dir", type=Path, help="where everything is written (default: work_dirs/<config>)"
    )
    add_plugin_option(parser)
    parser.add_argument("--seed", type=int, help="replaces the config's seed")
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        help="how the processes were started; torchrun is recognised by itself",
    )
    parser.add_argument(
        "--amp",
        nargs="?",
        const="bf16",
        choices=("bf16", "fp16"),
        help="mixed precision in training (default bf16; fp16 needs a GPU)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from a checkpoint, by default the newest in the work dir",
    )
    return parser


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """`--plugin`, for `load_config` or `load_plugins`."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="NAME_OR_PATH",
        help="import a module, a .py file or a package's folder that registers your classes; repeatable",
    )


STDOUT = Path("-")
"""What `--json -` is parsed as."""


def write_json(target: Path | None, content: Mapping[str, Any]) -> None:
    """What `--json FILE` does: write the result, print it for `-`; nothing without the option.

    Raises:
        IncompleteError: the file cannot be written; the message says where the result is now.
    """
    if target is None:
        return
    text = json.dumps(content, indent=2)
    if target == STDOUT:
        print(text)
    else:
        _, lost = write_or_rescue(target, text + "\n", sys.stdout)
        if lost:
            raise IncompleteError(lost)


def read_config(arguments: argparse.Namespace, needs: Sequence[str]) -> RunConfig:
    """The config with the command line's changes, checked before anything slow is imported.

    Args:
        arguments: of a parser from `make_parser`.
        needs: sections that the command cannot do without, see `mtvision.recipe.check.check_config`.
    """
    options = list(arguments.cfg_options)
    if arguments.seed is not None:
        options.append(f"seed={arguments.seed}")
    if arguments.amp is not None:
        options.append(f"training.precision={arguments.amp}")
    config, _ = load_checked(arguments.config, options, arguments.plugin, needs)
    return config


def work_dir_of(arguments: argparse.Namespace) -> Path:
    """`--work-dir`, or a folder named after the config."""
    given: Path | None = arguments.work_dir
    return given or Path("work_dirs") / Path(arguments.config).stem
