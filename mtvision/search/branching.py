"""Branching searches whose logits were trained with the network: Learning to Branch and BMTAS."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mtvision.architecture.tree import Tree
from mtvision.core.registry import SEARCHERS
from mtvision.models.branching.node import Node
from mtvision.models.branching.supernet import Mixing, Supernet
from mtvision.search.problem import Searcher, SearchProblem


class SupernetSearcher(Searcher):
    """Reads the most likely tree off a trained supernet and reports what it costs.

    The network needs the adapter `BranchingSearch`; whether logits were trained jointly or on held-out images
    is the config's `step`.
    """

    mixing: Mixing

    def search(self, problem: SearchProblem) -> dict[str, Any]:
        """`tree`, `cost`, `affinities`, `log`, see `branching_result`; and `scores`.

        `scores` are headline scores on the held-out images of the most likely tree with the supernet's own
        weights, {} where nothing is held out. The tree trained anew has others.

        Raises:
            TypeError: the network holds no supernet of this kind.
        """
        net = problem.network.backbone
        if not isinstance(net, Supernet) or net.mixing != self.mixing:
            raise TypeError(
                f"{type(self).__name__} needs a trained supernet: model.adapters=[dict("
                f"type='BranchingSearch', mixing='{self.mixing}', iterations=...)]."
            )
        tree = net.tree()
        probabilities = [logits.detach().float().softmax(dim=1) for logits in net.architecture_logits]
        found = branching_result(tree, net.node_chain(), net.macs)
        found["cost"]["expected_macs"] = net.expected_macs().item()
        found["scores"] = problem.evaluate(None) if problem.held_out_images else {}
        found["affinities"] = together(net, probabilities)
        found["log"] = {
            "passes": int(net.passes),
            "probabilities": [table.cpu().tolist() for table in probabilities],
            "choices": net.best_choices(),
        }
        return found


@SEARCHERS.register_module()
class LTBSearcher(SupernetSearcher):
    """Learning to Branch (Guo et al., ICML 2020), from a supernet with `mixing="straight_through"`."""

    mixing = "straight_through"


@SEARCHERS.register_module()
class BMTASSearcher(SupernetSearcher):
    """BMTAS (Brüggemann et al., BMVC 2020), from a supernet with `mixing="streams"`."""

    mixing = "streams"


def branching_result(tree: Tree, chain: list[Node], macs: list[int]) -> dict[str, Any]:
    """Result of a branching search: the tree, its cost, its drawing as text.

    Args:
        tree: found.
        chain: one node per level, for the parameters.
        macs: of one node per level.
    """
    parameters = [sum(item.numel() for item in node.parameters()) for node in chain]
    return {
        "tree": tree.to_plain(),
        "drawing": tree.draw().splitlines(),
        "cost": {
            "macs": tree.cost(macs),
            "parameters": tree.cost(parameters),
            "shared": {"macs": sum(macs), "parameters": sum(parameters)},
            "separate": {
                "macs": len(tree.tasks) * sum(macs),
                "parameters": len(tree.tasks) * sum(parameters),
            },
            "per_level": {"macs": list(macs), "parameters": parameters},
        },
    }


def together(net: Supernet, probabilities: list[Tensor]) -> dict[str, Any]:
    """Probability that two tasks share a level, per level and their mean; (T, T) matrices."""
    names = net.task_names
    if net.mixing == "streams":
        share = torch.ones(len(names), len(names), device=probabilities[0].device)
        levels = []
        for table in probabilities:
            share = share * (table @ table.T)
            levels.append(share)
    else:
        levels = _shared_parents(probabilities)
    matrices = [_with_ones(item).cpu().tolist() for item in levels]
    mean = torch.tensor(matrices).mean(dim=0)
    return {"tasks": list(names), "measure": "probability of sharing a level", "levels": matrices,
            "mean": mean.tolist()}  # fmt: skip


def _shared_parents(probabilities: list[Tensor]) -> list[Tensor]:
    """P(tasks a, b use one node of level l): merge[i, j] of nodes i ≠ j above, and those already merged."""
    last = probabilities[-1]
    joint = torch.einsum("ai,bj->abij", last, last)  # where tasks a and b are, independent while apart
    levels = []
    for table in [*probabilities[-2::-1], None]:
        same = joint.diagonal(dim1=2, dim2=3)  # (a, b, node)
        levels.append(same.sum(dim=-1))
        if table is None:
            break
        apart = joint - torch.diag_embed(same)
        moved = torch.einsum("abij,ik,jl->abkl", apart, table, table)
        joint = moved + torch.diag_embed(torch.einsum("abi,ik->abk", same, table))
    return levels[::-1]


def _with_ones(matrix: Tensor) -> Tensor:
    result = matrix.clone()
    result.fill_diagonal_(1.0)
    return result
