"""`mtvision doctor [CONFIG]`: whether this machine can train, and what would slow it down."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtvision.cli.common import add_plugin_option
from mtvision.recipe.check import TO_TRAIN, load_checked

if TYPE_CHECKING:
    from mtvision.procedures.doctor.check import Check

SECTIONS = ("machine", "software", "data", "test", "speed")
DESCRIPTION = """\
Look at this machine as a run would. Nothing is changed, and nothing is sent anywhere.

  machine   versions, processor, memory, GPUs, disks, shared memory, limits
  software  optional packages, process groups, kernels against their written-out form
  data      which of the data sets of shipped configs are in ./data, and whether they open
  test      train, save, load and score two images
  speed     images a second of the loader, and of training steps

Exit code 0, or 1 where a problem was found. Notes are no problems.
"""
DEFAULT = "parallel/parallel_tiny_synthetic_1xb8_300"
SIGNS = {"ok": "✓", "note": "•", "problem": "✗"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    options = ["train_data.num_workers=0"] if arguments.config == DEFAULT else []
    config, _ = load_checked(arguments.config, [*options, *arguments.cfg_options], arguments.plugin, TO_TRAIN)
    from mtvision.procedures.doctor.check import tried
    from mtvision.procedures.doctor.machine import machine
    from mtvision.procedures.doctor.sets import data_sets
    from mtvision.procedures.doctor.software import software
    from mtvision.procedures.doctor.trial import self_test, speed

    looks: dict[str, Callable[[], Iterator[Check]]] = {
        "machine": lambda: machine(arguments.work_dir),
        "software": software,
        "data": data_sets,
        "test": lambda: self_test(config),
        "speed": lambda: speed(config),
    }
    found: dict[str, list[Check]] = {}
    for name in SECTIONS:
        if name in (arguments.only or SECTIONS):
            if not arguments.json:
                print(name)
            found[name] = []
            for check in tried(name, looks[name], f"`mtvision validate {arguments.config}` says more."):
                found[name].append(check)
                if not arguments.json:
                    _show(check)
    problems = [check for checks in found.values() for check in checks if check.level == "problem"]
    if arguments.json:
        sections = {name: [check.to_json() for check in checks] for name, checks in found.items()}
        print(json.dumps({"config": arguments.config, "problems": len(problems), **sections}, indent=2))
    elif not problems:
        print("no problem found")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtvision doctor",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config",
        nargs="?",
        default=DEFAULT,
        metavar="CONFIG",
        help="what `test` and `speed` run (default: a tiny network on rendered scenes)",
    )
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change values of the config"
    )
    add_plugin_option(parser)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="only these sections")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("work_dirs"), help="where runs are going to be written"
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    return parser


def _show(check: Check) -> None:
    print(f"  {SIGNS[check.level]} {check.name}: {check.text}", flush=True)
    if check.remedy:
        print(f"      {check.remedy}")
