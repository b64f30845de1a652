"""Representation similarity of single-task networks (Dwivedi and Roig, CVPR 2019), the affinity of RSA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtvision.models.network import Network
from mtvision.search.problem import SearchProblem


def dissimilarity_matrix(features: Tensor) -> Tensor:
    """1 - Pearson correlation between the features (K, D) of every two images; (K, K), float64."""
    centred = features.double() - features.double().mean(dim=1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
    similarity: Tensor = unit @ unit.T
    return 1 - similarity


def spearman(first: Tensor, second: Tensor) -> float:
    """Rank correlation of two vectors; ties share their mean rank. 0 where one is constant."""
    from scipy.stats import rankdata

    ranks = [torch.from_numpy(rankdata(item.numpy())) for item in (first, second)]
    one, two = (item - item.mean() for item in ranks)
    scale = one.norm() * two.norm()
    return float(one @ two / scale) if scale > 0 else 0.0


@torch.no_grad()
def level_features(network: Network, images: Sequence[Tensor], ends: Sequence[int]) -> list[Tensor]:
    """State after each level of a network's backbone, flattened: per level (K, D).

    Args:
        network: with a backbone that is cut into blocks.
        images: batches (B, 3, H, W) of one size.
        ends: number of blocks that have run at the end of each level.

    Raises:
        ValueError: images of several sizes.
    """
    if len({tuple(batch.shape[1:]) for batch in images}) > 1:
        raise ValueError(
            "RSA: the held-out images differ in size, so their features cannot be compared. Give val_data "
            "transforms that crop, pad or resize to one size."
        )
    found: list[list[Tensor]] = [[] for _ in ends]
    network.eval()
    for batch in images:
        for position, state in enumerate(network.backbone._states(batch)):
            if position in ends:
                found[list(ends).index(position)].append(state.flatten(1).float().cpu())
    return [torch.cat(parts) for parts in found]


def rsa_affinities(
    networks: Mapping[str, Network], problem: SearchProblem, ends: Sequence[int], images: int
) -> Tensor:
    """(levels, T, T) Spearman correlations of dissimilarity matrices; 1 on the diagonal."""
    batches, count = [], 0
    for batch in problem.held_out():
        batches.append(batch.image[: images - count])
        count += len(batches[-1])
        if count >= images:
            break
    if count < 3:
        raise ValueError(f"RSA: {count} held-out images are too few; hold out more (search.held_out).")
    upper = torch.triu_indices(count, count, offset=1)
    vectors = [
        [dissimilarity_matrix(item)[upper[0], upper[1]] for item in level_features(network, batches, ends)]
        for network in networks.values()
    ]
    size = len(vectors)
    result = torch.ones(len(ends), size, size, dtype=torch.float64)
    for level in range(len(ends)):
        for one in range(size):
            for two in range(one):
                value = spearman(vectors[one][level], vectors[two][level])
                result[level, one, two] = result[level, two, one] = value
    return result
