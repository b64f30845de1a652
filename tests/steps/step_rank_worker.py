"""One of several gloo processes: a step on its share of the batch, gradients written to a file.

Usage: step_rank_worker.py RANK WORLD RENDEZVOUS_FILE JOB_FILE RESULT_FILE
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from step_toy import NAMES, ToyForward, gradients, make_samples, make_toy

from mtvision.core.registry import BALANCERS
from mtvision.core.sample import collate
from mtvision.engine.ranks import average_over_ranks, begin_average_over_ranks
from mtvision.steps import PlainStep, StepProblem
from mtvision.steps.gradients import exchange, products


def run_job(job: dict, rank: int, world: int, *, overlapped: bool = True) -> dict:
    """All batches of the job through one step object, gradients adding up."""
    network = make_toy()
    network.selective = job.get("selective", False)
    balancer = BALANCERS.build(job["balancer"], tasks=NAMES).double()
    step = PlainStep(**job.get("step", {}))
    forward = ToyForward(network, regulariser=job.get("regulariser", 0.0))
    if not step.averages_gradients(balancer) and world > 1:
        shell = torch.nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)
        forward.network = shell
        shell.trunk = network.trunk
    problem = StepProblem(
        forward,
        balancer,
        list(network.named_parameters()),
        average=average_over_ranks if world > 1 else list,
        begin_average=begin_average_over_ranks if world > 1 and overlapped else None,
    )
    logs = []
    for samples in job["batches"]:
        share = len(samples) // world
        mine = [item for index, item in enumerate(samples) if index // share == rank]
        logs.append({name: float(value) for name, value in step(problem, collate(mine)).items()})
    own = {name: item.grad for name, item in balancer.named_parameters()}
    return {"gradients": gradients(network), "balancer": own, "logs": logs}


def main() -> None:
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    rendezvous, job_file, result_file = sys.argv[3:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    jobs = torch.load(job_file, weights_only=False)
    products.BUCKET = exchange.BUCKET = 8  # so that parts of so small a network travel apart
    results = {name: run_job(job, rank, world) for name, job in jobs.items()}
    for name, job in jobs.items():
        results[name]["waiting"] = run_job(job, rank, world, overlapped=False)
    torch.save(results, result_file)
    dist.destroy_process_group()


__all__ = ["make_samples", "run_job"]

if __name__ == "__main__":
    main()
