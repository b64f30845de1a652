"""Arguments that the tools share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from mtvision.core.values import check_value, describe
from mtvision.recipe.check import check_config, load_checked
from mtvision.recipe.config import RunConfig
from mtvision.recipe.sections import Seed
from mtvision.runtime.attempts import IncompleteError
from mtvision.runtime.rescue import write_or_rescue
from mtvision.share.source import find_source, names_checkpoint


def numeric(kind: Any) -> Callable[[str], Any]:
    """What reads the number of an option, for `type=`; argparse names the option in its message.

    Args:
        kind: of `mtvision.core.values`, e.g. `Positive`.

    >>> from mtvision.core.values import Positive
    >>> numeric(Positive)("3")
    3
    """
    plain = int if int in (kind, *get_args(kind)) else float

    def read(text: str) -> Any:
        try:
            value: Any = plain(text)
            check_value("it", value, kind)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {describe(kind)}, got {text!r}") from None
        return value

    return read


RUN_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "work-dir": {"type": Path, "help": "where everything is written (default: work_dirs/<config>)"},
    "seed": {"type": numeric(Seed), "help": "replaces the config's seed"},
    "launcher": {
        "choices": ("none", "pytorch", "slurm", "mpi"),
        "help": "how the processes were started; torchrun is recognised by itself",
    },
    "amp": {
        "nargs": "?",
        "const": "bf16",
        "choices": ("bf16", "fp16"),
        "help": "mixed precision (default bf16; fp16 needs a GPU)",
    },
    "resume": {
        "nargs": "?",
        "const": "auto",
        "metavar": "CHECKPOINT",
        "help": "start, continue from the newest checkpoint of the work dir, or say that all is done; with a "
        "CHECKPOINT, continue from that one",
    },
}
"""Options of runs, which some commands have."""


def make_parser(
    command: str,
    description: str,
    takes: Sequence[Literal["work-dir", "seed", "launcher", "amp", "resume"]] = (),
    *,
    checkpoint: Literal["needed", "alone"] | None = None,
) -> argparse.ArgumentParser:
    """Parser with CONFIG, `--cfg-options` and `--plugin`.

    Args:
        command: its name.
        description: of the command.
        takes: further options of runs; a command has those that it reads.
        checkpoint: `needed` adds CHECKPOINT. With `alone` a checkpoint may stand in the place of CONFIG,
            because it holds its config.
    """
    parser = argparse.ArgumentParser(
        prog=f"mtvision {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config", help="a config file, or the name of a shipped one (`mtvision configs list`)"
    )
    if checkpoint:
        parser.add_argument(
            "checkpoint",
            nargs=None if checkpoint == "needed" else "?",
            help="a checkpoint of that config: a file, the folder of a run, hf:owner/name or demo",
        )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change values of the config, e.g. training.iterations=100 optimizer.lr=1e-4; "
        "keys the config does not have are refused",
    )
    add_plugin_option(parser)
    for name in takes:
        parser.add_argument(f"--{name}", **RUN_OPTIONS[name])
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


def read_with(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, other: str, *names: str
) -> None:
    """Refuse options that are read with another one only, which is not given. Ends with exit code 2.

    Args:
        parser: of the command.
        arguments: what it parsed.
        other: the option that makes the others read, as argparse stores it.
        names: the others.
    """
    given = vars(arguments)
    if given[other] not in (None, False, []):
        return
    needed = other.upper() if other in ("config", "results") else f"--{other.replace('_', '-')}"
    for name in names:
        if given[name] != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{option} is read with {needed} only; give that, too, or leave it out.")


def spare_inputs(option: str, out: Path | None, inputs: Iterable[str | Path | None]) -> None:
    """Refuse an output that would replace what the command reads; call it before any work.

    Args:
        option: that names the output, for the message.
        out: the output; None = nothing is written.
        inputs: files; of a folder, any file below it that is there already. Names that are no path are
            passed over.

    Raises:
        ValueError: the output is an input.
    """
    if out is None or not out.is_file():
        return
    target = out.resolve()
    for item in (Path(name) for name in inputs if name):
        place = item.resolve()
        if target == place or (place.is_dir() and target.is_relative_to(place)):
            where = "an input of this command" if target == place else f"a file of {item}, which is an input"
            raise ValueError(f"{option}: {out} is {where} and would be lost. Give another file.")


def texts_in(entry: Any) -> Iterator[str]:
    """All texts in nested plain data: what of a data set's config may be a path."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, Mapping):
        for item in entry.values():
            yield from texts_in(item)
    elif isinstance(entry, Sequence):
        for item in entry:
            yield from texts_in(item)


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
    options = _options(arguments)
    config, _ = load_checked(arguments.config, options, arguments.plugin, needs)
    return config


def config_of(arguments: argparse.Namespace, needs: Sequence[str]) -> tuple[RunConfig, str | None]:
    """The config of a command that also takes a checkpoint alone, and the checkpoint's file if there is one.

    Args:
        arguments: as `read_config`.
        needs: as `read_config`.

    Raises:
        FileNotFoundError, CheckpointError, ShareError: no such checkpoint.
        ValueError, TypeError, UnknownNameError: mistakes in the config; a checkpoint twice.
    """
    given: str | None = vars(arguments).get("checkpoint")
    if not names_checkpoint(arguments.config):
        config = read_config(arguments, needs)
        return config, None if given is None else find_source(given).file
    if given is not None:
        raise ValueError(
            f"{arguments.config} and {given} are both checkpoints; give one, or CONFIG before CHECKPOINT."
        )
    from mtvision.api.opened import open_checkpoint

    opened = open_checkpoint(arguments.config, options=_options(arguments), plugins=arguments.plugin)
    check_config(opened.config, needs)
    return opened.config, opened.source.file


def _options(arguments: argparse.Namespace) -> list[str]:
    """`--cfg-options`, and what other options change of the config."""
    options, given = list(arguments.cfg_options), vars(arguments)
    if given.get("seed") is not None:
        options.append(f"seed={arguments.seed}")
    if given.get("amp") is not None:
        options.append(f"{given.get('amp_of', 'training')}.precision={arguments.amp}")
    return options


def work_dir_of(arguments: argparse.Namespace) -> Path:
    """`--work-dir`, or a folder named after the config."""
    given: Path | None = arguments.work_dir
    return given or Path("work_dirs") / Path(arguments.config).stem
