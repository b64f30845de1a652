"""Multi-Task Structural Learning: training in turns with merging of groups whose features are alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtvision.architecture.tree import Group, Tree
from mtvision.core.random import HELD_OUT_SHARE
from mtvision.engine.building import training_module
from mtvision.engine.start.begun import begin
from mtvision.merge.states import State
from mtvision.merge.table import merge
from mtvision.models.branching.encoder import BranchedEncoder
from mtvision.models.branching.node import node_macs
from mtvision.models.branching.paths import cut_points
from mtvision.models.network import Network
from mtvision.procedures.rounds.run import tuned
from mtvision.procedures.search import FORMAT, HeldOut, write_architecture
from mtvision.recipe.building import network_of, trained_network
from mtvision.recipe.config import RunConfig
from mtvision.recipe.settings import Settings, to_plain_data
from mtvision.runtime.checkpoint import save_network
from mtvision.search.alignment import grown_tree, linear_cka
from mtvision.search.branching import branching_result

_NODES = "backbone.nodes."


@dataclass(frozen=True, kw_only=True)
class StructureRequest:
    """What is done, besides the config; its `training.iterations` are those of one learning phase.

    Args:
        work_dir: receives a folder per phase and `architecture.json`.
        phases: learning phases; groups may merge after each but the last.
        threshold: CKA above which groups merge.
        cuts: where levels end, see `mtvision.models.branching.paths.cut_points`.
        images: held-out images that are compared.
        held_out: share of the training images that nothing trains on.
    """

    work_dir: Path
    phases: int = 4
    threshold: float = 0.8
    cuts: str | Sequence[int] = "stages"
    images: int = 64
    held_out: float = HELD_OUT_SHARE


def learn_structure(config: RunConfig, request: StructureRequest) -> dict[str, Any]:
    """Start with a backbone per task and share what becomes alike (MTSL, Gowda et al., 2023).

    A merged group starts with the mean of its members' weights. What is done in the work dir is not done
    again. The alignment loss and the amalgamation of the released code are left out.

    Args:
        config: with a plain backbone and a decoder that can branch.
        request: how.

    Returns:
        What a branching search returns: `tree`, `cost`, and `log` with the tree after every phase. It is in
        `architecture.json`, too; `log["checkpoint"]` is the last one.

    Raises:
        FileExistsError: the work dir was begun with another config, threshold, ... .
    """
    settings = Settings.of(config)
    begin(
        request.work_dir,
        {
            "config": config.sha256[:12],
            "threshold": request.threshold,
            "cuts": request.cuts,
            "images": request.images,
            "held_out": request.held_out,
        },
    )
    ends = cut_points(network_of(config, settings.protocol).backbone, request.cuts)
    blocks = [end - start for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    trees = [Tree.separate(settings.protocol.task_names, blocks)]
    start: Path | None = None
    for number in range(1, request.phases + 1):
        own, folder = with_tree(config, trees[-1]), request.work_dir / f"phase_{number}"
        begun = {} if start is None else {"training.load_from": str(start)}
        last = tuned(own.with_options(begun), folder, request.held_out)
        if number < request.phases:
            trees.append(_structural(config, settings, trees[-1], last, request))
            start = folder / "merged.pth"
    encoder = trained_network(own, settings.protocol, last)[0].backbone
    assert isinstance(encoder, BranchedEncoder)  # of the adapter `Branched`
    chain = encoder.node_chain()
    found = branching_result(trees[-1], chain, node_macs(chain, encoder.trial_size()))
    found["log"] = {
        "threshold": request.threshold,
        "trees": [tree.to_plain() for tree in trees],
        "checkpoint": str(last.relative_to(request.work_dir)),
    }
    names = {"protocol": settings.protocol.id, "tasks": list(settings.protocol.task_names)}
    result = {"format": FORMAT, "searcher": "MTSL", **names, **found}
    write_architecture(result, request.work_dir / "architecture.json")
    return result


def _structural(
    config: RunConfig, settings: Settings, tree: Tree, last: Path, request: StructureRequest
) -> Tree:
    """The tree after a structural phase; its weights are in `merged.pth` beside the checkpoint."""
    own, out = with_tree(config, tree), last.parent / "merged.pth"
    network, meta = trained_network(own, settings.protocol, last)
    grown = _grown(own, settings, network, tree, request)
    if not out.is_file():
        state = merged_nodes(network.state_dict(), tree, grown)
        about = {
            "config": with_tree(config, grown).text,
            "protocol": meta["protocol"],
            "tasks": meta["tasks"],
        }
        save_network(out, state, about)
    return grown


def with_tree(config: RunConfig, tree: Tree) -> RunConfig:
    """The config with its backbone branched by a tree."""
    model = to_plain_data(config["model"])
    adapters = [*(model.get("adapters") or ()), {"type": "Branched", "tree": tree.to_plain()}]
    return config.with_options({"model": {**model, "adapters": adapters}})


def _grown(
    config: RunConfig, settings: Settings, network: Network, tree: Tree, request: StructureRequest
) -> Tree:
    """The tree after a structural phase, with groups in the order of the tasks."""
    module = training_module(config, settings, network).eval()
    held_out = HeldOut(config, settings, module, request.held_out)
    images, count = [], 0
    for batch in held_out.batches():
        images.append(batch.image[: request.images - count])
        count += len(images[-1])
        if count >= request.images:
            break
    features = group_features(network, tree, images)

    def similarity(level: int, one: Group, two: Group) -> float:
        return linear_cka(features[level, one], features[level, two])

    grown = grown_tree(tree, similarity, request.threshold)
    return Tree.from_paths({name: grown.path(name) for name in settings.protocol.task_names}, tree.blocks)


@torch.no_grad()
def group_features(network: Network, tree: Tree, images: Iterable[Tensor]) -> dict[tuple[int, Group], Tensor]:
    """{(level, group): (N, C) mean over places of the state after the level}.

    Args:
        network: with the adapter `Branched` of the tree.
        tree: whose groups are meant.
        images: batches (B, 3, H, W).
    """
    encoder = network.backbone
    assert isinstance(encoder, BranchedEncoder)  # of the adapter `Branched`
    found: dict[tuple[int, Group], list[Tensor]] = {}
    hooks = []
    for level, groups in enumerate(tree.levels):
        for index, group in enumerate(groups):
            parts = found.setdefault((level, group), [])

            def keep(_: Any, __: Any, result: Any, parts: list[Tensor] = parts) -> None:
                parts.append(_pooled(result[0]))

            hooks.append(encoder.node(level, index).register_forward_hook(keep))
    try:
        for batch in images:
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {key: torch.cat(parts) for key, parts in found.items()}


def _pooled(state: Tensor) -> Tensor:
    """(B, C) of (B, C, H, W) or of tokens (B, L, C)."""
    axes = (2, 3) if state.ndim == 4 else (1,)
    return state.float().mean(dim=axes).cpu()


def merged_nodes(state: State, before: Tree, after: Tree) -> dict[str, Any]:
    """The state of a branched network for a tree in which groups have merged: means of their nodes.

    Args:
        state: of the network with the tree `before`.
        before: groups in the order of the nodes.
        after: each of its groups is a union of groups before.
    """
    result = {name: item for name, item in state.items() if not name.startswith(_NODES)}
    for level, groups in enumerate(after.levels):
        for index, group in enumerate(groups):
            members: dict[str, Mapping[str, Any]] = {
                str(old): _node(state, level, old)
                for old, inner in enumerate(before.levels[level])
                if set(inner) <= set(group)
            }
            node = merge("average", next(iter(members.values())), members)
            result |= {f"{_NODES}{level}.{index}.{name}": item for name, item in node.items()}
    return result


def _node(state: State, level: int, index: int) -> dict[str, Any]:
    prefix = f"{_NODES}{level}.{index}."
    return {name.removeprefix(prefix): item for name, item in state.items() if name.startswith(prefix)}
