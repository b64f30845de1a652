"""`mtvision predict CHECKPOINT INPUT… --out DIR`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtvision.cli.common import add_plugin_option, numeric
from mtvision.core.values import Count, Positive, Rate
from mtvision.evaluation.predict.inputs import Found, find_inputs
from mtvision.evaluation.predict.names import output_names
from mtvision.evaluation.predict.outputs import (
    DEFAULT_IMAGE,
    DEFAULT_VIDEO,
    KINDS,
    Places,
    check_outputs,
    parse_kinds,
)
from mtvision.recipe.check import check_config
from mtvision.recipe.config import RunConfig, load_config
from mtvision.runtime.progress import counting, messages

if TYPE_CHECKING:
    from mtvision.core.context import Context
    from mtvision.evaluation.predict.session import Session
    from mtvision.evaluation.predictor import Predictor
    from mtvision.runtime.precision import Precision

DESCRIPTION = f"""\
Run a checkpoint on images and videos. The config is in the checkpoint.

CHECKPOINT is a file, the folder of a run, hf:owner/name, or demo: a small network that comes with mtvision.

INPUT is a file, a folder with its sub-folders, a quoted glob, an http(s) address, camera:0,
or - for a list of them on standard input. Pictures are turned upright as their EXIF says.

--save KIND,…  (images: {",".join(DEFAULT_IMAGE)}; videos: {",".join(DEFAULT_VIDEO)})
{chr(10).join(f"  {name:<8} {text}" for name, text in KINDS.items())}

Inputs and earlier outputs are never replaced. What cannot be read is listed at the end, with exit code 1.
--json prints one JSON object per input and nothing else.
"""
SHOWN = 20
"""How many problems are listed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    name = Path(arguments.checkpoint)
    if name.suffix in (".py", ".json", ".yaml", ".yml") and not name.name.endswith(".index.json"):
        raise ValueError(
            f"{arguments.checkpoint}: expected a checkpoint first, which holds its config. To use another "
            "config: mtvision predict CHECKPOINT INPUT --config CONFIG."
        )
    kinds = None if arguments.save is None else parse_kinds(arguments.save)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out} is a file; expected a folder.")
    found = find_inputs(arguments.inputs, arguments.out)
    if found.summary():
        messages().print(found.summary(), markup=False)
    given = _given_config(arguments)
    return _predict(arguments, found, kinds, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtvision predict",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="a trained network, see above")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="see above")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("predictions"),
        metavar="DIR",
        help="output folder (default: predictions)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier outputs")
    parser.add_argument("--save", metavar="KIND,…", help="what is written, see above")
    parser.add_argument("--tasks", metavar="TASK,…", help="only these, e.g. depth,normals (default: all)")
    parser.add_argument(
        "--size", nargs=2, type=numeric(Positive), metavar=("H", "W"), help="images are scaled to this area"
    )
    parser.add_argument(
        "--tile",
        nargs=2,
        type=numeric(Positive),
        metavar=("H", "W"),
        help="predict in tiles, at the picture's own resolution: for pictures larger than memory",
    )
    parser.add_argument(
        "--overlap",
        type=numeric(Count),
        metavar="PIXELS",
        help="what neighbouring tiles share (default: a quarter of the smaller side)",
    )
    parser.add_argument(
        "--batch", type=numeric(Positive), default=1, metavar="N", help="images at once (default: 1)"
    )
    parser.add_argument(
        "--frames", type=numeric(Positive), metavar="N", help="at most so many of a video or camera"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: cpu)")
    parser.add_argument(
        "--amp", nargs="?", const="bf16", choices=("bf16", "fp16"), help="mixed precision (default: bf16)"
    )
    parser.add_argument(
        "--budget", type=numeric(Rate), help="of a slimmable network: share of the full one (up to 1) or MACs"
    )
    parser.add_argument(
        "--preference", metavar="TASK=WEIGHT,…", help="of a slimmable network: how much each task matters"
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON per input")
    parser.add_argument("--config", help="for checkpoints that hold none: the config they were trained with")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change values of the config"
    )
    add_plugin_option(parser)
    return parser


def _given_config(arguments: argparse.Namespace) -> RunConfig | None:
    """`--config`, checked before torch is imported."""
    if arguments.config is None:
        return None
    config = load_config(arguments.config, arguments.cfg_options, arguments.plugin)
    check_config(config, ("model",))
    return config


def _predict(
    arguments: argparse.Namespace, found: Found, kinds: Sequence[str] | None, config: RunConfig | None
) -> int:
    from mtvision.api.model import model_of
    from mtvision.api.opened import open_checkpoint
    from mtvision.evaluation.predict.session import Session

    precision = _require_device(arguments.device, arguments.amp)
    opened = open_checkpoint(
        arguments.checkpoint,
        config=config,
        options=arguments.cfg_options,
        plugins=arguments.plugin,
        tasks=arguments.tasks,
    )
    names = output_names(found.sources)
    places = Places(arguments.out, opened.protocol.tasks, kinds)
    _check(arguments, found, names, places, opened.source.file)
    predictor = model_of(
        opened,
        size=(arguments.size[0], arguments.size[1]) if arguments.size else None,
        device=arguments.device,
        precision=precision,
        tile=(arguments.tile[0], arguments.tile[1]) if arguments.tile else None,
        overlap=arguments.overlap,
    ).predictor
    session = Session(
        predictor,
        places,
        context=_control(predictor, arguments),
        batch=arguments.batch,
        frames=arguments.frames,
    )
    return _work(arguments, found, names, session)


def _require_device(device: str, amp: str | None) -> Precision:
    """The precision of `--amp`; says at once, and once, what would fail for every image.

    Raises:
        ValueError: no such device, or fp16 on a CPU.
    """
    import torch

    from mtvision.runtime.precision import autocast

    precision: Precision = "fp16" if amp == "fp16" else "bf16" if amp else "fp32"
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from error
    with autocast(precision, place):
        return precision


def _check(
    arguments: argparse.Namespace, found: Found, names: Sequence[str], places: Places, checkpoint: str
) -> None:
    """Refuse outputs that would replace something, and COCO files of nothing."""
    named = list(zip(found.sources, names, strict=True))
    planned = {source.text: places.planned(source, name) for source, name in named}
    if any("coco" in places.kinds(source) for source in found.sources):
        from mtvision.evaluation.predict.writing import CocoFiles

        planned["--save coco"] = [places.coco(task) for task in CocoFiles(places.tasks).tasks]
    protected = [source.path for source in found.sources if source.path is not None]
    protected += [Path(checkpoint), *([Path(arguments.config)] if arguments.config else [])]
    check_outputs(planned, protected, overwrite=arguments.overwrite)


def _control(predictor: Predictor, arguments: argparse.Namespace) -> Context | None:
    """The context of `--budget` and `--preference`, chosen once for all images."""
    if arguments.budget is None and arguments.preference is None:
        return None
    from mtvision.core.context import Context
    from mtvision.search.width_table import parse_preference

    preference = None if arguments.preference is None else parse_preference(arguments.preference)
    context = predictor.conditioned(Context(), arguments.budget, preference)
    if context.widths is None:  # the network itself answers for a preference
        return context
    choice = predictor.choose(arguments.budget, preference)
    text = f"{choice.widths}, {choice.cost / 1e6:.1f} of {choice.budget / 1e6:.1f} million MACs per image"
    messages().print(text)
    return context


def _work(arguments: argparse.Namespace, found: Found, names: Sequence[str], session: Session) -> int:
    """Predict everything, print results as they come and problems at the end."""
    problems, written, done = list(found.problems.values()), set[Path](), 0
    total = len(names) + len(found.problems)
    if arguments.json:
        for text, problem in found.problems.items():
            _print_json({"input": text, "error": problem})
    with counting("predict", len(names)) as counter:
        for result in session.run(zip(found.sources, names, strict=True)):
            written.update(result.outputs)
            done += bool(result.outputs)
            if result.error is not None:
                problems.append(result.error)
            if arguments.json:
                _print_json(result.to_json())
            counter.advance()
    session.finish()
    if not arguments.json:
        print(f"{done} of {total} inputs, {len(written)} files in {arguments.out}")
    if problems:
        console = messages()
        count = f"{len(problems)} of {total} inputs"
        console.print(f"mtvision predict: {count} are missing, damaged or incomplete:", markup=False)
        for problem in problems[:SHOWN]:
            console.print(f"  {problem}", markup=False)
        if len(problems) > SHOWN:
            console.print(f"  … and {len(problems) - SHOWN} more", markup=False)
    return 1 if problems else 0


def _print_json(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
