"""`mtvision search CONFIG [CHECKPOINT]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from mtvision.architecture.tree import Tree
from mtvision.cli.common import make_parser, numeric, read_config, spare_inputs, work_dir_of
from mtvision.cli.procedures.merge import checkpoints_of, pairs_of
from mtvision.core.values import Factor, Rate
from mtvision.recipe.config import RunConfig
from mtvision.recipe.settings import protocol_of
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.progress import messages
from mtvision.share.source import find_source

if TYPE_CHECKING:
    from mtvision.procedures.search import SearchRequest

DRAW_AGAIN = "the result is in the JSON file; `--resume` draws it again"

DESCRIPTION = """\
Search an architecture (a branching tree, widths, a grouping of tasks, blocks to fine-tune) and write
architecture.json, which an ordinary config reads. The config's section `search` names the searcher. Without
CHECKPOINT, the networks that the search needs are trained first, on the training images that are not held
out. Variants are judged on the held-out images. The test split is not read.

Interrupted:     the same command with --resume
Trade-off curve: --cost-weights 0 10 100 (trade_off.json, .md and .png in the work dir)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("search", DESCRIPTION, ("work-dir", "seed", "launcher", "amp", "resume"))
    parser.add_argument("checkpoint", nargs="?", help="a checkpoint of that config")
    parser.add_argument(
        "--others", nargs="+", default=[], metavar="NAME=CKPT", help="further networks, e.g. one per task"
    )
    parser.add_argument(
        "--budget", type=numeric(Rate), help="what the result may cost; the searcher says in which unit"
    )
    parser.add_argument(
        "--cost-weights",
        nargs="+",
        type=numeric(Factor),
        metavar="λ",
        help="one branching search per weight of the expected cost, each in its own folder; also writes a "
        "table and a plot of cost against held-out scores",
    )
    parser.add_argument("--preference", metavar="TASK=WEIGHT,…", help="how much each task matters")
    parser.add_argument("--out", type=Path, help="the result (default: architecture.json in the work dir)")
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier search")
    arguments = parser.parse_intermixed_args(argv)  # CHECKPOINT may follow options
    options: dict[str, object] = {}
    if arguments.budget is not None:
        options["budget"] = arguments.budget
    if arguments.preference is not None:
        pairs = pairs_of("--preference", arguments.preference.split(","))
        options["preference"] = {name: _number(name, value) for name, value in pairs.items()}
    work_dir = work_dir_of(arguments)
    out = arguments.out or work_dir / "architecture.json"
    others = checkpoints_of("--others", arguments.others)
    checkpoint = None if arguments.checkpoint is None else find_source(arguments.checkpoint).file
    spare_inputs("--out", out, [arguments.config, checkpoint, *others.values()])
    config = read_config(arguments, ("search", "model", "train_data"))
    from mtvision.procedures.search import SearchRequest, search, write_architecture
    from mtvision.runtime.launch import joined

    with joined(arguments.launcher):
        request = SearchRequest(
            work_dir=work_dir,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            others={name: Path(path) for name, path in others.items()},
            options=options,
            resume=arguments.resume is not None,
            overwrite=arguments.overwrite,
        )
        if arguments.cost_weights:
            show_trade_off(config, request, arguments.cost_weights)
        else:
            found = search(config, request)
            write_architecture(found, out, messages())
            show(found, out)
    return 0


def show(found: Mapping[str, Any], out: Path) -> None:
    """Print what was found and draw tree and affinities beside the file, which is written already."""
    from mtvision.runtime.launch import is_main_process
    from mtvision.visualize import write_picture
    from mtvision.visualize.branching import affinity_picture, tree_picture

    if not is_main_process():
        return
    console, drawn = Console(), Attempts()
    if "tree" in found:
        tree = Tree.from_plain(found["tree"])
        console.print(tree.draw(), highlight=False, markup=False)
        path = out.with_suffix(".tree.png")
        drawn.run(path.name, lambda: write_picture(path, tree_picture(tree)), DRAW_AGAIN)
    for group in found.get("groups", ()):
        console.print(f"train together: {', '.join(group)}", highlight=False)
    affinities = found.get("affinities")
    if isinstance(affinities, Mapping) and {"tasks", "mean"} <= set(affinities):
        names, matrix = affinities["tasks"], affinities["mean"]
        table = Table(title=affinities.get("measure"))
        table.add_column("")
        for name in names:
            table.add_column(name, justify="right")
        for name, row in zip(names, matrix, strict=True):
            table.add_row(name, *(f"{value:.3f}" for value in row))
        console.print(table)
        picture = out.with_suffix(".affinity.png")
        drawn.run(picture.name, lambda: write_picture(picture, affinity_picture(names, matrix)), DRAW_AGAIN)


def show_trade_off(config: RunConfig, request: SearchRequest, cost_weights: Sequence[float]) -> None:
    """Search once per weight; print every tree, then the table of all."""
    from mtvision.procedures.trade_off import trade_off, trade_off_table
    from mtvision.runtime.launch import is_main_process

    tasks = protocol_of(config).tasks
    result = trade_off(config, request, cost_weights, tasks, show)
    if not is_main_process():
        return
    columns, rows = trade_off_table(result, tasks)
    table = Table(title="one search per weight λ of the expected cost; scores on held-out images")
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    messages().print(f"wrote {request.work_dir / 'trade_off.json'}, .md and .png")


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"--preference: the weight of '{name}' is no number: {text!r}.") from error
