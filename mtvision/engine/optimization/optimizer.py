"""Optimizers with parameter groups by norms, depth and roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from mtvision.core.registry import OPTIMIZERS
from mtvision.core.roles import is_architecture
from mtvision.engine.optimization.schedule import build_schedule, check_schedule
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.models.network import Network
from mtvision.recipe.sections import TrainingSettings
from mtvision.recipe.settings import to_plain_data
from mtvision.runtime.launch import rank_and_world_size

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def build_optimizer(
    network: Network, balancer: nn.Module, config: Mapping[str, Any], *, shard: bool = False
) -> torch.optim.Optimizer:
    """Optimizer over the trainable parameters of network and balancer.

    Args:
        network: its `backbone.blocks` define the depth for layer-wise decay.
        balancer: its parameters get no weight decay and their own learning rate.
        config: `type` (AdamW, Adam, SGD or a torch class), `lr`, `weight_decay`, further arguments of the
            class, and

            * `no_decay` (default True): no weight decay for biases, norms and position embeddings.
            * `layer_decay` (default None): factor < 1 by which the rate shrinks per block towards the stem.
            * `backbone_lr` (default 1): factor of the whole backbone.
            * `lr_factors` (default none): {glob of parameter names: factor}, e.g.
              `{"backbone.fusions.*": 100}`. The first that matches counts, in addition to the factors above.
            * `balancer_lr` (default `lr`): rate of the balancer's own parameters.
            * `architecture_lr` (default `lr`): rate of architecture parameters (`mtvision.core.roles`). They
              are never decayed.

        shard: keep the state of every parameter on one process only (ZeRO, stage 1). The updates are the
            same.

    Raises:
        ValueError: `lr` is missing, no parameter is trainable, or a glob matches none.
        UnknownNameError: unknown optimizer.
    """
    options = dict(config)
    kind = options.pop("type", "AdamW")
    factory = OPTIMIZERS.choose(kind)
    if "lr" not in options:
        raise ValueError("optimizer: 'lr' is missing.")
    lr = float(options["lr"])
    decay = float(options.setdefault("weight_decay", 0.0))
    no_decay = options.pop("no_decay", True)
    layer_decay = options.pop("layer_decay", None)
    backbone_factor = float(options.pop("backbone_lr", 1.0))
    balancer_lr = float(options.pop("balancer_lr", lr))
    architecture_lr = float(options.pop("architecture_lr", lr))
    factors = _factors(network, options.pop("lr_factors", None) or {})

    undecayed = _undecayed(network) if no_decay else set()
    depth = _depths(network) if layer_decay else dict.fromkeys(_backbone_names(network), 0)
    deepest = max(depth.values(), default=0)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0
        if name in depth:
            factor = backbone_factor * (layer_decay ** (deepest + 1 - depth[name]) if layer_decay else 1.0)
        factor *= factors.get(name, 1.0)
        key = (lr * factor, 0.0 if name in undecayed else decay)
        if is_architecture(name):
            key = (architecture_lr, 0.0)
        groups.setdefault(key, {"params": [], "lr": key[0], "weight_decay": key[1]})["params"].append(
            parameter
        )
    own = [item for item in balancer.parameters() if item.requires_grad]
    if own:
        groups[balancer_lr, -1.0] = {"params": own, "lr": balancer_lr, "weight_decay": 0.0}
    if not groups:
        raise ValueError("optimizer: no parameter of the network is trainable; unfreeze some.")
    if shard and rank_and_world_size()[1] > 1:
        local: Any = factory  # torch says "class", but calls it only
        return ZeroRedundancyOptimizer(list(groups.values()), optimizer_class=local, **options)
    optimizer: torch.optim.Optimizer = factory(list(groups.values()), **options)
    return optimizer


def regrouped(
    saved: Mapping[str, Any],
    then: Sequence[Sequence[str]],
    now: Sequence[Sequence[str]],
    fresh: Mapping[str, Any],
    *,
    partly: bool = False,
) -> dict[str, Any]:
    """An optimizer's state for other groups of the same parameters, such as those of another `lr_factors`.

    Args:
        saved: `state_dict()` of the optimizer.
        then: names of the parameters in each of its groups.
        now: names in each group of the optimizer that takes the state.
        fresh: its `state_dict()`.
        partly: take the state of the parameters that both have, such as beside another balancer's own.

    Raises:
        ValueError: the parameters are not the same.
    """
    before = {name: index for index, name in enumerate(name for group in then for name in group)}
    after = [name for group in now for name in group]
    other = sorted(before.keys() ^ set(after))
    if other and not partly:
        raise ValueError(f"the optimizer has other parameters: {', '.join(other[:3])}, …")
    state = {
        index: saved["state"][before[name]]
        for index, name in enumerate(after)
        if name in before and before[name] in saved["state"]
    }
    # mmengine adds a group of its own, `base_param_settings`, where there are several
    settings = ("param_groups", "base_param_settings")
    kept = {name: value for name, value in saved.items() if name not in settings}
    return {**kept, **{name: fresh[name] for name in settings if name in fresh}, "state": state}


def build_optimization(
    config: Mapping[str, Any],
    training: TrainingSettings,
    network: Network,
    balancer: nn.Module,
    *,
    steps: int | None = None,
) -> tuple[PrecisionOptimWrapper, list[Any]]:
    """The config's optimizer in its wrapper, and its schedulers.

    Args:
        config: of the run.
        training: its section `training`.
        network: what is trained.
        balancer: its own parameters are trained too.
        steps: that the schedules span; None = those of the run.

    Raises:
        ValueError, UnknownNameError: as `build_optimizer` and `check_schedule`.
    """
    steps = training.iterations if steps is None else steps
    wrapper = PrecisionOptimWrapper(
        build_optimizer(
            network, balancer, to_plain_data(config["optimizer"] or {}), shard=training.shard == "zero"
        ),
        precision=training.precision,
        max_norm=training.clip_grad,
        non_finite=training.non_finite,
    )
    tasks = network.task_names if training.val_interval else ()
    check_schedule(config["schedule"], steps, wrapper.param_groups, tasks)
    return wrapper, build_schedule(config["schedule"], steps, wrapper)


def _factors(network: nn.Module, globs: Mapping[str, float]) -> dict[str, float]:
    """{parameter: factor of the first glob that matches it}."""
    names = [name for name, item in network.named_parameters() if item.requires_grad]
    found: dict[str, float] = {}
    for glob, factor in globs.items():
        matched = [name for name in names if fnmatchcase(name, glob)]
        if not matched:
            raise ValueError(
                f"optimizer: lr_factors names '{glob}', which matches no trainable parameter. "
                f"Parameters are called like '{names[0] if names else ''}'."
            )
        found = dict.fromkeys(matched, float(factor)) | found
    return found


def _undecayed(network: nn.Module) -> set[str]:
    names = set()
    for path, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            embedding = any(word in name for word in ("pos_embed", "cls_token", "relative_position_bias"))
            if parameter.ndim <= 1 or isinstance(module, _NORMS) or embedding:
                names.add(full)
    return names


def _backbone_names(network: Network) -> list[str]:
    return [name for name, _ in network.backbone.named_parameters(prefix="backbone")]


def _depths(network: Network) -> dict[str, int]:
    """{backbone parameter: 0 for the stem, i + 1 for block i}; what follows counts as the last block."""
    block_of = {}
    for name, index in network.backbone.block_depths().items():
        for parameter in network.backbone.get_submodule(name).parameters():
            block_of[id(parameter)] = index + 1
    last = max(block_of.values(), default=0)
    depths, seen = {}, 0
    for name, parameter in network.backbone.named_parameters(prefix="backbone"):
        seen = block_of.get(id(parameter), last if seen else 0)
        depths[name] = seen
    return depths
