"""Tries a converted network at narrow widths."""

from __future__ import annotations

from contextlib import ExitStack

from mtvision.architecture.widths import WidthConfig
from mtvision.models.adapters.slimmable.width import Slimming
from mtvision.models.dry_run import Pass, dry_run
from mtvision.models.network import Network

PROBE = 0.25
"""Width at which every part is tried once, beside full ones, when a network is converted."""


def try_out(network: Network, control: Slimming) -> None:
    """Run every part narrow beside full ones.

    Raises:
        ValueError: widths do not fit together, or logits would be slimmed.
    """
    channels = {task.name: task.out_channels for task in network.tasks}
    for widths in _trials(control):
        result = _run(network, widths)
        for name, logits in result.logits.items():
            if logits.shape[1] != channels[name]:
                raise ValueError(
                    f"slimmable: the logits of '{name}' would be slimmed; its head is not known."
                )


def _run(network: Network, widths: WidthConfig) -> Pass:
    running: list[str] = []

    def left(*_: object) -> None:
        running.pop()

    with ExitStack() as stack:
        for path, module in network.named_modules():
            enter = module.register_forward_pre_hook(lambda *_, path=path: running.append(path))
            leave = module.register_forward_hook(left)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        try:
            return dry_run(network, widths, training=True)
        except (RuntimeError, ValueError, AssertionError) as error:
            path = running[-1] if running else ""
            kind = type(network.get_submodule(path)).__name__
            raise ValueError(
                f"slimmable: the network does not run at {widths}: {str(error).splitlines()[0]} It stops in "
                f"'{path}' ({kind}). What is added, multiplied or attended there must be as wide: declare "
                "the parts of these layers in the class around them (docs/slimmable.md), or choose another "
                "network."
            ) from error


def _trials(control: Slimming) -> list[WidthConfig]:
    """Full, narrow, every part narrow alone."""
    stages, tasks = (1.0,) * control.stages, dict.fromkeys(control.tasks, 1.0)
    trials = [(stages, tasks), ((PROBE,) * control.stages, dict.fromkeys(control.tasks, PROBE))]
    for index in range(control.stages):
        trials += [(tuple(PROBE if item == index else 1.0 for item in range(control.stages)), tasks)]
    trials += [(stages, {**tasks, name: PROBE}) for name in control.tasks]
    return [WidthConfig(*item) for item in trials]
