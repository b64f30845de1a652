"""One of several gloo processes: TROA learns from its share of the images.

Usage: troa_rank_worker.py RANK WORLD RENDEZVOUS_FILE JOB_FILE RESULT_FILE
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from mtvision.core.context import means_over
from mtvision.engine.ranks import average_over_ranks
from mtvision.models.factory import build_network
from mtvision.protocols.tasks import depth, edge, normals

TASKS = (depth(), normals(), edge())
SWIN = {
    "type": "TimmBackbone",
    "name": "swin_tiny_patch4_window7_224",
    "embed_dim": 6,
    "depths": (1, 1),
    "num_heads": (1, 2),
    "window_size": 2,
}


def learn(job: dict, rank: int, world: int) -> torch.Tensor:
    """Moving means of cosines after some steps; the weights stay as they are."""
    torch.manual_seed(0)
    adapters = [{"type": "VTAGML", "embedding": 4, "similarities": True, "stream": False}]
    parts = {
        "decoder": {"type": "ParallelDecoder", "width": 4, "norm": "group"},
        "head": {"type": "ConvHead"},
    }
    network = build_network({"backbone": dict(SWIN), "adapters": adapters, **parts}, TASKS).train()
    torch.nn.init.normal_(network.backbone.task_type_embeddings.weight)
    similarities = network.backbone.task_type_embeddings.similarities
    divides = bool(job.get("divides"))  # a step that divides its batch: the first process has a part more
    average = average_over_ranks if world > 1 else None
    for image in job["images"]:
        with means_over(average):  # as the engine does
            logits = network(image[rank])
        # A process has labels of its tasks alone.
        torch.stack([logits[name].square().mean() for name in job["labels"][rank]]).sum().backward()
        if divides and rank == 0:
            network(image[rank])["depth"].mean().backward()
    with means_over(None if divides else average):
        similarities.update()
    return similarities.cosines.clone()


def main() -> None:
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    rendezvous, job_file, result_file = sys.argv[3:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    jobs = torch.load(job_file, weights_only=False)
    torch.save([learn(job, rank, world) for job in jobs], result_file)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
