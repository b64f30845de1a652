"""The weights that a phase takes over from the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mtvision.engine.average import TRAINED
from mtvision.models.network import Network
from mtvision.models.partial import load_partly
from mtvision.recipe.phases.plan import Phase

_PARTS = {"balancer.": "balancer", "step.": "step"}
"""{prefix of the training module's state: section of the config that it belongs to}."""


def carry_weights(module: nn.Module, phase: Phase, checkpoint: Mapping[str, Any], filename: str) -> None:
    """Load what the phase takes over from the last checkpoint of the phase before.

    Of an equal network all weights are loaded, and the state of balancer and step where these are the same.
    Of another network what fits is loaded, and the rest is reported.

    Args:
        module: the training module, freshly built.
        phase: that begins.
        checkpoint: of the phase before.
        filename: of the checkpoint, for messages.

    Raises:
        CheckpointError: next to nothing of the weights fits.
    """
    if phase.fresh:
        return
    if not phase.same_network:
        network = module.get_submodule("network")
        assert isinstance(network, Network)  # of the training module
        load_partly(network, checkpoint, filename)
        return
    state = {**checkpoint["state_dict"], **checkpoint.get(TRAINED, {})}
    new = tuple(prefix for prefix, section in _PARTS.items() if section in phase.changed)
    kept = {name: item for name, item in state.items() if not name.startswith(new)}
    own = {name: item for name, item in module.state_dict().items() if name.startswith(new)}
    module.load_state_dict({**kept, **own})
