"""`mtvision validate CONFIG …`: find what `train` would find late."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mtvision.cli.common import add_plugin_option, numeric
from mtvision.core.naming import ReportedError
from mtvision.core.values import Positive
from mtvision.recipe.check import TO_TRAIN, load_checked
from mtvision.recipe.config import RunConfig
from mtvision.recipe.settings import Settings
from mtvision.runtime.atomic import require_writable

if TYPE_CHECKING:
    from mtvision.procedures.validation import Passed

STAGES = ("schema", "build", "data", "step", "score")
DESCRIPTION = """\
Try a config without training it. One line for each stage; the first that fails ends it with exit code 2.

  schema  every key, name, argument and value of the config, before torch is imported; the work dir
  build   network, losses, balancer, optimizer and schedule, without weights in memory; shapes of all logits
  data    the data sets of all sections, a sample of each, labels of every task
  step    one step on two images, with losses, balancer and optimizer
  score   the metrics on two images, a picture, a record that is written and read back

Nothing is downloaded or sent. What is written lies in a temporary folder (--keep DIR), except caches that a
data set of the config keeps.

  mtvision validate my_config.py
  mtvision validate my_config.py --random-data              without the data, at the protocol's sizes
  mtvision validate my_config.py --random-data --size 64 96 the same with small images
  mtvision validate configs/mtmamba/*.py --until build
"""


class InvalidConfigError(ReportedError, ValueError):
    """Some of several configs are not valid; what is wrong with each was said before."""


@dataclass
class Result:
    """What is known of one config.

    Args:
        name: as it was given.
        stages: of the finished stages: name, text, seconds and further facts.
        error: what the stage `failed` said.
        failed: name of a stage.
        seconds: of all stages.
    """

    name: str
    stages: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    failed: str | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "config": self.name,
            "valid": self.error is None,
            "stages": self.stages,
            "failed": self.failed,
            "error": self.error,
            "seconds": self.seconds,
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.size and not arguments.random_data:
        parser.error("--size is that of random images: give --random-data too.")
    results: list[Result] = []
    wrong: list[Exception] = []
    for name in arguments.configs:
        results.append(Result(name))
        try:
            _validate(arguments, results[-1])
        except (ReportedError, ValueError, TypeError, OSError, ImportError) as error:
            wrong.append(error)
            results[-1].error = str(error)
            if len(arguments.configs) > 1:
                print(f"mtvision validate: {name}: {error}", file=sys.stderr)
    if arguments.json:
        print(json.dumps([item.to_json() for item in results], indent=2))
    if wrong and len(results) == 1:
        raise wrong[0]
    if wrong:
        names = ", ".join(item.name for item in results if item.error is not None)
        raise InvalidConfigError(
            f"{len(wrong)} of {len(results)} configs are not valid: {names}."
        ) from wrong[0]
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtvision validate",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="config files, or names of shipped ones")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change values of the configs"
    )
    add_plugin_option(parser)
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1], help="the last stage to run")
    parser.add_argument(
        "--random-data", action="store_true", help="use random labelled images in place of the data sets"
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=numeric(Positive),
        metavar=("H", "W"),
        help="of random images, instead of the protocol's",
    )
    parser.add_argument(
        "--pretrained", action="store_true", help="take the step from the config's pretrained weights"
    )
    parser.add_argument(
        "--work-dir", type=Path, help="where `train` is going to write; it must be possible there"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep what the last two stages write in DIR/<config>"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _validate(arguments: argparse.Namespace, result: Result) -> None:
    """Run the stages of one config and note them.

    Raises:
        ReportedError, ValueError, TypeError, OSError, ImportError: the first mistake.
    """
    started = time.perf_counter()
    wanted = STAGES[: STAGES.index(arguments.until) + 1]
    if not arguments.json:
        print(result.name)
    with _noting(result, "schema", quiet=arguments.json) as note:
        config, settings = load_checked(result.name, arguments.cfg_options, arguments.plugin, TO_TRAIN)
        note.text = _schema(settings)
        require_writable(arguments.work_dir or Path("work_dirs") / Path(result.name).stem)
    if len(wanted) > 1:
        _try(arguments, result, config, wanted[1:])
    result.seconds = time.perf_counter() - started
    if not arguments.json:
        print(f"{result.name} is valid: {_summary(result)}.")


def _try(arguments: argparse.Namespace, result: Result, config: RunConfig, wanted: Sequence[str]) -> None:
    """The stages that need torch."""
    from mtvision.procedures.validation import Validation

    with _folder(arguments.keep, Path(result.name).stem) as folder:
        trial = Validation(
            config,
            folder,
            random_data=arguments.random_data,
            size=tuple(arguments.size) if arguments.size else None,
            pretrained=arguments.pretrained,
        )
        runs = {"build": trial.build, "data": trial.data, "step": trial.step, "score": trial.score}
        for name in wanted:
            with _noting(result, name, quiet=arguments.json) as note:
                note.take(runs[name]())


@dataclass
class _Note:
    text: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def take(self, passed: Passed) -> None:
        """What a stage found."""
        self.text, self.facts = passed.text, dict(passed.facts)


@contextmanager
def _noting(result: Result, name: str, *, quiet: bool) -> Iterator[_Note]:
    """A stage inside a block: its line is printed, and it is added to the result."""
    note = _Note()
    started = time.perf_counter()
    result.failed = name
    try:
        yield note
        result.failed = None
    finally:
        if not quiet:
            print(f"  ✗ {name}" if result.failed else f"  ✓ {name:<6}  {note.text}", flush=True)
    seconds = time.perf_counter() - started
    result.stages.append({"stage": name, "text": note.text, **note.facts, "seconds": seconds})


def _schema(settings: Settings) -> str:
    names = settings.protocol.task_names
    return f"{settings.protocol.title}: {', '.join(names)}; {settings.training.iterations:,} iterations"


def _summary(result: Result) -> str:
    counts = [
        f"{item['parameters'] / 1e6:.2f} M parameters" for item in result.stages if "parameters" in item
    ]
    return ", ".join([*counts, f"{result.seconds:.1f} s"])


@contextmanager
def _folder(keep: Path | None, name: str) -> Iterator[Path]:
    """A new folder: `keep/name`, or a temporary one that is removed.

    Raises:
        FileExistsError: `keep/name` is there already.
    """
    if keep is None:
        with TemporaryDirectory(prefix="mtvision-validate-") as temporary:
            yield Path(temporary) / name
        return
    folder = keep / name
    if folder.exists():
        raise FileExistsError(f"--keep: {folder} exists; give another folder.")
    yield folder
