"""Forward passes of compiled networks.

`torch.compile` turns a part of a network into one node of the graph. Its backward pass gives zeros, not None,
to parameters that a loss does not reach. So what a loss reaches is found by a pass that is not compiled.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mtvision.core.roles import graph_nodes
from mtvision.core.sample import Batch
from mtvision.steps.gradients.statistics import kept_buffers
from mtvision.steps.problem import LossReport, StepProblem

_NODE = "CompiledFunctionBackward"


def is_compiled(losses: Iterable[Tensor]) -> bool:
    """Whether the graph of a loss has a compiled part."""
    return any(node.name().startswith(_NODE) for node in graph_nodes(losses))


def eager_report(problem: StepProblem, batch: Batch) -> LossReport:
    """Losses of a forward pass without compiled code; random numbers and statistics are as before.

    Raises:
        RuntimeError: this torch cannot switch compiled code off.
    """
    if torch.__version__ < "2.6":
        raise RuntimeError(
            "rules over gradients of a compiled network need torch 2.6 or newer, this is "
            f"{torch.__version__}. Update torch, or do not compile."
        )
    device = problem.parameters[0][1].device
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        kept_buffers(problem),
        torch.compiler.set_stance("force_eager"),
    ):
        return problem.forward(batch)
