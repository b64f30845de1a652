"""The console script `mtvision COMMAND …` and what every tool shares: one error message, one exit code."""

from __future__ import annotations

import importlib
import os
import select
import sys
from collections.abc import Callable, Sequence
from functools import partial

from mtvision import __version__
from mtvision.core.naming import ReportedError, UnknownNameError, look_up
from mtvision.runtime.lost import from_worker, lost_process, original_message

COMMANDS = {
    "list": ("catalogue.entries", "what a config may name: decoders, balancers, metrics, …"),
    "show": ("catalogue.show", "one of them: arguments, documentation, the configs that name it"),
    "new": ("catalogue.new", "a decoder, balancer, metric, data set or task of your own, with its test"),
    "init": ("data.init", "a config for data of your own, with a contact sheet and a report"),
    "configs": ("catalogue.configs", "list, show and copy the configs that come with the suite"),
    "validate": ("validate", "try a config on two images: find now what training would find late"),
    "doctor": (
        "machine.doctor",
        "whether this machine can train: environment, back-ends, data, a self test, speed",
    ),
    "train": ("train", "train a config, evaluate it, write the record, the table and pictures"),
    "test": ("test", "score a checkpoint"),
    "score": ("results.score", "score predictions on disk, of any code base"),
    "predict": ("predict", "run a checkpoint on images, folders or videos"),
    "export": ("export", "a trained network as ONNX, as a PyTorch program, or as weights with their config"),
    "share": ("share", "a trained network for others: one file with its config, a model card, the hub"),
    "cost": ("cost", "parameters, multiply-accumulates, latency and memory of a config's network"),
    "browse-dataset": ("data.browse_dataset", "a sheet of samples as the network sees them"),
    "prepare-dataset": ("data.prepare_dataset", "from downloaded archives to the folder that a loader reads"),
    "check-dataset": (
        "data.check_dataset",
        "look for what would corrupt a score: counts, damaged, missing or foreign files",
    ),
    "convert-checkpoint": ("convert_checkpoint", "official checkpoints to ours, and back"),
    "evaluate-boundaries": ("results.evaluate_boundaries", "odsF of boundary maps on disk, without MATLAB"),
    "table": (
        "results.table",
        "a table of records: terminal, Markdown, LaTeX, CSV, HTML; published beside reproduced",
    ),
    "leaderboard": ("results.leaderboard", "check records before they are published, build the static page"),
    "search": (
        "procedures.search",
        "a branching tree, widths or a grouping of tasks, written as architecture.json",
    ),
    "controllable": (
        "procedures.controllable",
        "how budgets and preferences steer a trained slimmable network",
    ),
    "pareto": ("procedures.pareto", "the front of a network whose weights follow preferences, with a page"),
    "merge": ("procedures.merge", "one network for all tasks from fine-tuned single-task networks"),
    "surgery": ("procedures.surgery", "correct the features of a merged network, per task and scale"),
    "rounds": (
        "procedures.rounds",
        "train copies of a network and merge them in turns: ATM, ColD, ForkMerge",
    ),
    "launch": ("launch", "a grid of runs: locally, on Slurm, or as torchrun commands; ends with mean ± std"),
    "tune": ("procedures.tune", "search settings with Optuna or `wandb agent`, judged on held-out images"),
    "compare-runs": ("compare_runs", "whether two revisions of the code train alike, to the last bit"),
    "benchmark": ("machine.benchmark", "speed as ratios against a baseline of the same run"),
}
"""{command: (its module below this package, one line for `mtvision --help`)}"""


ENOUGH = 128 + 13
"""Exit code where the reader of a pipe has read enough, as of any program that SIGPIPE ends."""


def command_line(argv: Sequence[str] | None = None) -> int:
    """Run `mtvision COMMAND ARGUMENTS`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: mtvision COMMAND [ARGUMENTS]\n\nMulti-task dense scene understanding.\n\ncommands:")
        width = max(map(len, COMMANDS))
        print("\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()))
        print("\n`mtvision COMMAND --help` explains a command.")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"mtvision {__version__}")
        return 0
    name, *rest = arguments
    try:
        look_up("command", name, COMMANDS)
    except UnknownNameError as error:
        print(error, file=sys.stderr)
        return 2
    return call(name, rest)


def call(command: str, argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake becomes one message on stderr and exit code 2.

    So do errors of the processes that read data. A process that was killed gives exit code 1.

    With `MTVISION_TRACEBACK=1` in the environment the full traceback is shown instead.
    """
    location, _ = COMMANDS[command]
    module = importlib.import_module(f"mtvision.cli.{location}")
    if os.environ.get("MTVISION_TRACEBACK"):
        return int(module.main(argv))
    try:
        return int(module.main(argv))
    except ReportedError as error:
        return _tell(command, original_message(error), error.exit_code)
    except BrokenPipeError as error:
        return ENOUGH if _reader_left() else _tell(command, str(error), 2)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, KeyError) as error:
        lost = lost_process(error)
        if lost is not None:
            return _tell(command, lost, 1)
        if isinstance(error, RuntimeError | KeyError) and not from_worker(error):
            raise
        return _tell(command, original_message(error), 2)


def _tell(command: str, error: Exception | str, exit_code: int) -> int:
    print(f"mtvision {command}: {error}", file=sys.stderr)
    if exit_code == 2:
        print("(MTVISION_TRACEBACK=1 shows where.)", file=sys.stderr)
    return exit_code


def _reader_left() -> bool:
    """Whether standard output has no reader any more. What is still to be printed is then left out."""
    try:
        place = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # no file, as in a notebook
        return False
    try:
        sys.stdout.flush()
        left = _is_cut_off(place)
    except BrokenPipeError:
        left = True
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), place)
    return left


def _is_cut_off(pipe: int) -> bool:
    try:
        watched = select.poll()
    except AttributeError:  # Windows
        return False
    watched.register(pipe, 0)
    return any(event & select.POLLERR for _, event in watched.poll(0))


def _leave(command: Callable[[], int]) -> None:
    """Run a command and end the process with its exit code."""
    try:
        code = command()
    except BrokenPipeError:
        if not _reader_left():
            raise
        code = ENOUGH
    sys.exit(ENOUGH if _reader_left() else code)


def run(command: str) -> None:
    """Entry point of `tools/<command>.py`."""
    _leave(partial(call, command))


def main() -> None:
    """Entry point of the console script."""
    _leave(command_line)


if __name__ == "__main__":  # `python -m mtvision.cli.main train …`, also behind torchrun -m
    main()
