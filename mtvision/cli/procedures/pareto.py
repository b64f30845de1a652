"""`mtvision pareto CONFIG CHECKPOINT`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mtvision.cli.common import make_parser, numeric, read_config, work_dir_of
from mtvision.core.values import Count, Positive
from mtvision.runtime.progress import messages
from mtvision.share.source import find_source

DESCRIPTION = """\
Measure the front of a network that was trained with the adapter ParetoManifold. Writes to the work dir
  pareto.json  scores, relative errors and uniformity of every preference, and the hypervolume; .md the table
  pareto.pth   the checkpoint with statistics of batch norms for every preference
  page.html    predictions under a slider, in one file
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("pareto", DESCRIPTION, ("work-dir", "seed"), checkpoint="needed")
    parser.add_argument(
        "--images",
        type=numeric(Positive),
        default=64,
        help="training images for statistics of batch norms (default: 64)",
    )
    parser.add_argument(
        "--pictures", type=numeric(Count), default=2, help="test images on the page (default: 2)"
    )
    arguments = parser.parse_args(argv)
    config = read_config(arguments, ("model", "train_data", "test_data or val_data"))
    from rich.console import Console
    from rich.table import Table

    from mtvision.procedures.pareto import FrontRequest, front_table, measure_front
    from mtvision.recipe.settings import protocol_of

    baseline = config["evaluation"]["baseline"]
    out = work_dir_of(arguments)
    request = FrontRequest(
        checkpoint=Path(find_source(arguments.checkpoint).file),
        out=out,
        images=arguments.images,
        pictures=arguments.pictures,
        reference=baseline if isinstance(baseline, Mapping) else None,
    )
    found = measure_front(config, request)
    title, columns, rows = front_table(found, protocol_of(config).tasks)
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    messages().print(f"everything is in {out}")
    return 0
