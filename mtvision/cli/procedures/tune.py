"""`mtvision tune CONFIG --search KEY=RANGE…`: settings that are best on held-out training images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtvision.cli.common import add_plugin_option, numeric
from mtvision.core.random import HELD_OUT_SHARE
from mtvision.core.values import Part, Positive
from mtvision.recipe.check import TO_TRAIN, check_config
from mtvision.recipe.sections import Seed
from mtvision.runtime.progress import messages
from mtvision.sweep.local import run_locally
from mtvision.sweep.space import Axis, check_values, parse_space
from mtvision.sweep.tune import GAIN, Trials, search_with_optuna, wandb_sweep
from mtvision.sweep.weight_search import SearchInterruptedError
from mtvision.tracking.run_id import write_grid

DESCRIPTION = """\
Search settings with Optuna: one training per trial, judged on held-out training images, never on the test
images. The same command continues a search; several processes may work in one folder.

  mtvision tune CONFIG --search 'optimizer.lr=log(1e-5,1e-2)' balancer=Uncertainty,UPGrad --trials 30
  mtvision tune CONFIG --search 'optimizer.lr=log(1e-5,1e-2)' --objective depth/rmse --wandb-sweep > s.yaml
  wandb sweep s.yaml            # then on every machine: wandb agent OWNER/PROJECT/ID
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtvision tune", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, metavar="CONFIG")
    parser.add_argument(
        "--search",
        nargs="+",
        default=[],
        metavar="KEY=RANGE",
        help="KEY=log(LOW,HIGH), KEY=uniform(LOW,HIGH), KEY=int(LOW,HIGH), or values between commas",
    )
    parser.add_argument("--trials", type=numeric(Positive), default=20, help="trainings in all (default: 20)")
    parser.add_argument(
        "--objective",
        default=GAIN,
        metavar="TASK/SCORE",
        help="a headline score, or gain: mean relative change of all of them over the first trial (default)",
    )
    parser.add_argument(
        "--held-out",
        type=numeric(Part),
        default=HELD_OUT_SHARE,
        metavar="SHARE",
        help=f"training images that judge (default: {HELD_OUT_SHARE})",
    )
    parser.add_argument("--seed", type=numeric(Seed), default=0, help="of trainings and draws (default: 0)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="of all trials")
    add_plugin_option(parser)
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/tune_CONFIG")
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--wandb-sweep", action="store_true", help="print the file that `wandb sweep` takes; train nothing"
    )
    place.add_argument(
        "--trial", nargs="+", metavar="KEY=VALUE", help="train one trial; `wandb agent` calls it"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 if a single trial failed, 130 if interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.trial is None and not arguments.search:
        parser.error("--search names the settings; give at least one KEY=RANGE.")
    folder = arguments.work_dir or Path("work_dirs") / f"tune_{arguments.config.stem}"
    trials = Trials(
        config=arguments.config,
        folder=folder,
        objective=arguments.objective,
        held_out=arguments.held_out,
        seed=arguments.seed,
        options=arguments.cfg_options,
        plugins=arguments.plugin,
        check=lambda config: check_config(config, TO_TRAIN),
    )
    trials.higher_is_better()  # a mistake in the objective should not come up after a training
    try:
        if arguments.trial is not None:
            return _one_trial(trials, arguments.trial)
        axes = parse_space(arguments.search)
        trials.check_axes(axes)
        if arguments.wandb_sweep:
            return _print_sweep(trials, arguments, axes)
        write_grid(folder / "trials", folder.name)
        found = search_with_optuna(trials, axes, arguments.trials, run_locally, messages().print)
    except SearchInterruptedError as error:
        messages().print(str(error), markup=False)
        return 130
    best = found["best"]
    options = " ".join(f"'{text}'" for text in best["options"])
    print(f"best of {len(found['trials'])}: {trials.objective} {best['value']:.4g}")
    print(f"mtvision train {trials.config} --cfg-options {options}")
    return 0


def _one_trial(trials: Trials, values: Sequence[str]) -> int:
    return int(trials.trained(check_values(values), run_locally) is None)


def _print_sweep(trials: Trials, arguments: argparse.Namespace, axes: Sequence[Axis]) -> int:
    """The trials of `wandb agent` log to W&B themselves, so the sweep sees their final scores."""
    import yaml

    if trials.objective == GAIN and trials.plain["evaluation"]["baseline"] is None:
        raise ValueError(
            "--wandb-sweep: machines share no first trial to compute a gain over. Give --objective "
            "TASK/SCORE, or evaluation.baseline with --cfg-options."
        )
    options = ["logging.wandb=true", *arguments.cfg_options]
    command = ["mtvision", "tune", str(arguments.config), "--work-dir", str(trials.folder)]
    command += ["--seed", str(arguments.seed), "--held-out", str(arguments.held_out)]
    command += ["--objective", arguments.objective]
    command += [word for name in arguments.plugin for word in ("--plugin", name)]
    command += ["--cfg-options", *options, "--trial"]
    content = wandb_sweep(trials, axes, arguments.trials, command)
    print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000), end="")
    return 0
