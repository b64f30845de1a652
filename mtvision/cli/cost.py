"""`mtvision cost CONFIG --shape H W`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from rich.console import Console
from rich.table import Table

from mtvision.cli.common import config_of, make_parser, numeric, read_with
from mtvision.cli.machine.step_plan import BANDWIDTH
from mtvision.core.values import Positive, Rate
from mtvision.recipe.settings import protocol_of

DESCRIPTION = """\
Parameters and multiply-accumulates (MACs; 1 MAC = 2 FLOPs) of a config's network, in total and per part,
for one image of the given size. A checkpoint in the place of CONFIG gives the network that it holds.
Papers of this field print MACs as "GFLOPs". Fused attention is counted.

  mtvision cost CONFIG --plan --gpus 4 --batch 2    predict time and memory of training
  mtvision cost CONFIG --growth                     MACs and memory over pixels, tasks and levels
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("cost", DESCRIPTION)
    parser.add_argument(
        "--shape",
        nargs=2,
        type=numeric(Positive),
        metavar=("H", "W"),
        help="image size (default: the protocol's)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--meta", action="store_true", help="count only, without allocating weights")
    parser.add_argument("--no-latency", action="store_true", help="skip latency and memory")
    parser.add_argument(
        "--device", default="cpu", help="where latency and memory are measured (default: cpu)"
    )
    parser.add_argument("--plan", action="store_true", help="predict time and memory of training")
    parser.add_argument("--growth", action="store_true", help="count a training step at several sizes")
    parser.add_argument("--gpus", type=numeric(Positive), default=1, help="of --plan (default: 1)")
    parser.add_argument(
        "--batch", type=numeric(Positive), help="images per GPU, of --plan (default: the config's)"
    )
    parser.add_argument("--iterations", type=numeric(Positive), help="of --plan (default: the config's)")
    parser.add_argument(
        "--bandwidth",
        type=numeric(Rate),
        default=BANDWIDTH,
        metavar="GB/S",
        help="between GPUs (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=numeric(Rate),
        metavar="MACS",
        help="MACs per second of a device that is not here; measures nothing",
    )
    arguments = parser.parse_args(argv)
    read_with(parser, arguments, "plan", "gpus", "batch", "iterations", "bandwidth", "rate")
    if arguments.plan and arguments.growth:
        parser.error("--plan and --growth are two commands; give one.")
    config, _ = config_of(arguments, ("model",))
    protocol = protocol_of(config)
    size = tuple(arguments.shape) if arguments.shape else protocol.eval_size or protocol.train_size
    if size is None:
        raise ValueError(f"protocol {protocol.id} has no image size of its own; give --shape H W.")
    if arguments.plan or arguments.growth:
        from mtvision.cli.machine.plan_command import print_growth, print_plan

        made = print_plan if arguments.plan else print_growth
        train = protocol.train_size if not arguments.shape else None
        return made(config, protocol, train or (size[0], size[1]), arguments)
    from mtvision.core.shapes import without_values
    from mtvision.models.factory import build_network
    from mtvision.recipe.building import without_pretrained
    from mtvision.report.cost import measure_cost

    with without_values() if arguments.meta else nullcontext():
        network = build_network(without_pretrained(config["model"]), protocol.tasks)
    cost = measure_cost(
        network,
        (size[0], size[1]),
        meta=arguments.meta,
        latency=not (arguments.meta or arguments.no_latency),
        device=arguments.device,
    )
    if arguments.json:
        print(json.dumps(cost, indent=2))
    else:
        Console().print(cost_table(cost, f"{protocol.title}, {size[0]}x{size[1]}"))
    return 0


def cost_table(cost: Mapping[str, Any], title: str) -> Table:
    """The result of `measure_cost` as a terminal table."""
    table = Table(title=title)
    table.add_column("part")
    table.add_column("parameters", justify="right")
    table.add_column("MACs", justify="right")
    parameters, macs, latency, memory = (
        cost[key] for key in ("parameters", "macs", "latency", "peak_memory")
    )
    for part in {**parameters["parts"], **macs["parts"]}:
        table.add_row(
            part, _millions(parameters["parts"].get(part, 0)), _billions(macs["parts"].get(part, 0))
        )
    table.add_section()
    table.add_row("total", _millions(parameters["total"]), _billions(macs["total"]), style="bold")
    for name, words in (("trainable", "trained"), ("active", "read by one token")):
        if parameters[name] != parameters["total"]:
            table.add_row(words, _millions(parameters[name]), "")
    notes = []
    if latency:
        notes.append(
            f"latency {latency['median_ms']:.1f} ms (median of {latency['repeats']}) on {latency['device']}"
        )
    if memory:
        notes.append(f"peak memory {memory['bytes'] / 2**20:.0f} MiB")
    table.caption = ", ".join(notes) or None
    return table


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f} M"


def _billions(count: int) -> str:
    return f"{count / 1e9:.3f} G"
