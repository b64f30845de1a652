"""`mtvision controllable CONFIG CHECKPOINT`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mtvision.cli.common import make_parser, numeric, read_config, work_dir_of
from mtvision.cli.procedures.merge import checkpoints_of
from mtvision.core.values import Count, Rate
from mtvision.recipe.config import load_config
from mtvision.runtime.progress import messages
from mtvision.share.source import find_source

DESCRIPTION = """\
Measure how well budgets and preferences control a trained slimmable network. Writes to the work dir
  width_table.json      costs and qualities of all widths (read again if it is there)
  controllable.pth      the checkpoint with calibrated statistics and the table, for predict --budget
  controllability.json  every number; .md the tables, trade_off.png and widths.png the plots
  page.html             predictions under a slider, in one file
Widths are judged on `val_data`. Reported scores are those of `test_data`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("controllable", DESCRIPTION, ("work-dir", "seed"), checkpoint="needed")
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=numeric(Rate),
        default=[0.15, 0.3, 0.45, 0.6, 0.8],
        metavar="SHARE",
        help="shares of the full network's MACs (default: 0.15 0.3 0.45 0.6 0.8)",
    )
    parser.add_argument(
        "--separate",
        nargs="+",
        default=[],
        metavar="WIDTH=CHECKPOINT",
        help="plain networks trained separately at uniform widths; config.py lies beside each checkpoint",
    )
    parser.add_argument(
        "--pictures", type=numeric(Count), default=2, help="test images on the page (default: 2)"
    )
    arguments = parser.parse_args(argv)
    config = read_config(arguments, ("search", "model", "test_data or val_data"))
    from mtvision.procedures.control_report import summary_lines, terminal_tables, write_report
    from mtvision.procedures.controllable import measure, open_controlled, save_controlled, write_json
    from mtvision.procedures.search import build_searcher
    from mtvision.search.widths import WidthSearcher

    searcher, _ = build_searcher(config)
    if not isinstance(searcher, WidthSearcher):
        raise ValueError(f"controllable: search.type is {type(searcher).__name__}, expected WidthSearcher.")
    out = work_dir_of(arguments)
    separate = {}
    for width, path in checkpoints_of("--separate", arguments.separate).items():
        try:
            ratio = float(width)
        except ValueError:
            raise ValueError(f"--separate: expected WIDTH=CHECKPOINT, got {width}={path}.") from None
        separate[ratio] = (_config_beside(Path(path)), Path(path))
    controlled = open_controlled(
        config, find_source(arguments.checkpoint).file, searcher, out / "width_table.json"
    )
    save_controlled(controlled, out / "controllable.pth")
    result = measure(controlled, arguments.budgets, separate, messages())
    write_json(out / "controllability.json", result)
    save_controlled(controlled, out / "controllable.pth")  # again, with statistics of the mixtures measured
    write_report(controlled, result, out, pictures=arguments.pictures)
    for table in terminal_tables(result, controlled.settings.protocol.tasks):
        Console().print(table)
    for line in summary_lines(result):
        print(line)
    messages().print(f"everything is in {out}")
    return 0


def _config_beside(checkpoint: Path) -> Any:
    return load_config(checkpoint.parent / "config.py")
