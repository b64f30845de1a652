"""`mtvision rounds CONFIG`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mtvision.cli.common import make_parser, numeric, read_config, work_dir_of
from mtvision.cli.procedures.merge import options_of
from mtvision.core.random import HELD_OUT_SHARE
from mtvision.core.values import Count, Part, Positive, Share
from mtvision.recipe.config import RunConfig
from mtvision.runtime.progress import messages

DESCRIPTION = """\
Train copies of a network and merge them, in turns. training.iterations are the steps of a copy in a round.
The same command again continues.

ATM:         mtvision rounds CONFIG --rounds 10 --method task_arithmetic --option scale=0.5
ColD Fusion: mtvision rounds CONFIG --rounds 10 --method average
ForkMerge:   mtvision rounds CONFIG --rounds 5 --target semseg
MTSL:        mtvision rounds CONFIG --rounds 5 --structure 0.8

Without --target there is a copy per task. With it, a branch trains the target alone, and one branch per other
task trains both. Held-out training images choose what every branch counts. Writes round_N/merged.pth and
rounds.json. With --structure there is a backbone per task at first. After each round groups of tasks share
the next level if their features are more alike (CKA) than that. Writes phase_N/ and architecture.json.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("rounds", DESCRIPTION, ("work-dir", "seed", "amp"))
    parser.add_argument("--rounds", type=numeric(Positive), default=3, help="how many (default: 3)")
    parser.add_argument(
        "--method", default="average", help="how the copies of tasks are merged (default: average)"
    )
    parser.add_argument("--option", nargs="+", default=[], metavar="NAME=VALUE", help="options of the method")
    parser.add_argument("--target", default=None, metavar="TASK", help="ForkMerge: the task that matters")
    parser.add_argument(
        "--structure",
        type=numeric(Share),
        default=None,
        metavar="CKA",
        help="MTSL: alignment above which groups merge",
    )
    parser.add_argument(
        "--recalibrate", type=numeric(Count), default=0, metavar="IMAGES",
        help="training images for new statistics of batch norms after merging (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--held-out", type=numeric(Part), default=HELD_OUT_SHARE, metavar="SHARE",
        help=f"share of the training images that nothing trains on (default: {HELD_OUT_SHARE})",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    _refuse_unread(parser, arguments)
    config = read_config(arguments, ("model", "train_data", "optimizer"))
    if arguments.structure is not None:
        return _structure(config, arguments)
    from mtvision.procedures.rounds.run import RoundsRequest, run_rounds

    out = work_dir_of(arguments)
    request = RoundsRequest(
        work_dir=out,
        rounds=arguments.rounds,
        method=arguments.method,
        options=options_of(arguments.option),
        target=arguments.target,
        images=arguments.recalibrate,
        held_out=arguments.held_out,
    )
    found = run_rounds(config, request)
    for number, entry in enumerate(found["rounds"], 1):
        shares = ", ".join(f"{name} {share:.2g}" for name, share in entry.get("coefficients", {}).items())
        score = f"  gain {entry['score']:+.2f} %: {shares}" if "score" in entry else ""
        print(f"round {number}: {entry['checkpoint']}{score}")
    messages().print(f"best: {out / found['best']}")
    return 0


def _refuse_unread(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that the chosen procedure does not read."""
    chosen = [name for name in ("structure", "target") if vars(arguments)[name] is not None]
    if len(chosen) == 2:
        parser.error("--structure and --target are two procedures; give one of them.")
    unread = {"structure": ("method", "option", "recalibrate"), "target": ("method", "option")}
    for name in unread[chosen[0]] if chosen else ():
        if vars(arguments)[name] != parser.get_default(name):
            parser.error(f"--{name} is not read with --{chosen[0]}; leave it out.")


def _structure(config: RunConfig, arguments: argparse.Namespace) -> int:
    from mtvision.architecture.tree import Tree
    from mtvision.procedures.rounds.structure import StructureRequest, learn_structure

    out = work_dir_of(arguments)
    request = StructureRequest(
        work_dir=out,
        phases=arguments.rounds,
        threshold=arguments.structure,
        held_out=arguments.held_out,
    )
    found = learn_structure(config, request)
    for number, tree in enumerate(found["log"]["trees"], 1):
        print(f"phase {number}:\n{Tree.from_plain(tree).draw()}")
    messages().print(f"wrote {out / 'architecture.json'}")
    return 0
