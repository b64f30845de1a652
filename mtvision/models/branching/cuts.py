"""Whether a backbone may be cut where it says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtvision.models.backbones.backbone import Backbone
from mtvision.models.dry_run import in_mode


@torch.no_grad()
def check_cuts(backbone: Backbone) -> None:
    """Compare every module that holds some of the blocks with these blocks, run one after another.

    They differ where a cut lies inside a residual connection: what bypasses the cut would be lost. A network
    without values is not compared.

    Args:
        backbone: is run once on a small image; its weights and mode stay as they are.

    Raises:
        ValueError: a block does not exist, lies inside another one, or is cut out of a larger whole.
    """
    kind, names = type(backbone).__name__, backbone.block_names()
    modules = dict(backbone.named_modules())
    for name in names:
        if name not in modules:
            raise ValueError(f"branching: {kind}.block_names() names '{name}', which it does not have.")
        outer = [other for other in names if name.startswith(f"{other}.")]
        if outer or names.count(name) > 1:
            raise ValueError(
                f"branching: {kind}.block_names() names '{name}' twice, or inside '{''.join(outer[:1])}'. "
                "Blocks run one after another, so none may hold another."
            )
    if list(backbone.exits) != sorted(backbone.exits) or not 0 <= max(backbone.exits, default=0) <= len(
        names
    ):
        raise ValueError(
            f"branching: {kind}.exits are {backbone.exits}; give rising numbers of blocks up to {len(names)}."
        )
    parameter = next(backbone.parameters(), None)
    if parameter is None or parameter.is_meta:
        return
    generator = torch.Generator().manual_seed(0)  # the global one belongs to the weights made after this
    image = torch.rand(1, 3, *backbone.trial_size(), generator=generator).to(parameter)
    with in_mode(backbone, training=False):
        states = list(backbone._states(image))
        for path in _holders(names):
            _check_holder(kind, path, modules[path], names, states)


def _holders(names: Sequence[str]) -> list[str]:
    """Paths of the modules that hold some of the blocks, but not all; the innermost first."""
    found = {name[:place] for name in names for place in range(len(name)) if name[place] == "."}
    several = [path for path in found if not all(name.startswith(f"{path}.") for name in names)]
    return sorted(several, key=lambda path: (-path.count("."), path))


def _check_holder(
    kind: str, path: str, module: nn.Module, names: Sequence[str], states: Sequence[Tensor]
) -> None:
    inside = [index for index, name in enumerate(names) if name.startswith(f"{path}.")]
    try:
        whole = module(states[inside[0]])
    except (NotImplementedError, TypeError):  # a list of modules, or one that needs more than the state
        return
    after = states[inside[-1] + 1]
    if not isinstance(whole, Tensor) or (whole.shape == after.shape and torch.allclose(whole, after)):
        return
    raise ValueError(
        f"branching: {kind} cuts inside '{path}' ({type(module).__name__}): the blocks "
        f"{', '.join(names[index] for index in inside)}, run one after another, do not give what it gives, "
        "as where a residual connection bypasses a cut. Name it as one block in block_names()."
    )
