"""Start the process group before mmengine does.

mmengine 0.10.7 calls `torch.cuda.set_device` whenever it starts a group, which makes training on several CPU
processes impossible; it leaves an existing group alone.
"""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from mtvision.core.naming import UnknownNameError

T = TypeVar("T")
Launcher = Literal["none", "pytorch", "slurm", "mpi"]

_VARIABLES = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
}


def start_processes(launcher: str | None = None, *, timeout_minutes: int = 60) -> Launcher:
    """Join the process group that the launcher's environment describes.

    Args:
        launcher: `none`, `pytorch` (torchrun), `slurm` (srun) or `mpi` (Open MPI); None means torchrun if its
            variables are set, else a single process.
        timeout_minutes: how long ranks wait for one another; evaluation of a large split takes a while.

    Returns:
        The launcher in use. Outside a group nothing is started.

    Raises:
        UnknownNameError: no such launcher.
        RuntimeError: the environment lacks the launcher's variables.
    """
    chosen = launcher or ("pytorch" if "RANK" in os.environ and "WORLD_SIZE" in os.environ else "none")
    if chosen == "none":
        return "none"
    if chosen not in _VARIABLES:
        raise UnknownNameError("launcher", chosen, ("none", *_VARIABLES))
    if dist.is_initialized():
        return chosen  # type: ignore[return-value]
    names = _VARIABLES[chosen]
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise RuntimeError(
            f"--launcher {chosen}: the environment has no {', '.join(missing)}. Start the command through "
            f"{ {'pytorch': 'torchrun', 'slurm': 'srun', 'mpi': 'mpirun'}[chosen] }, or use --launcher none."
        )
    for target, source in zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), names, strict=True):
        os.environ[target] = os.environ[source]
    if chosen == "slurm":
        os.environ.setdefault("MASTER_ADDR", _first_slurm_host())
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    return chosen  # type: ignore[return-value]


def _first_slurm_host() -> str:
    listing = os.environ.get("SLURM_NODELIST", "")
    try:
        command = ["scontrol", "show", "hostnames", listing]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        raise RuntimeError(
            f"--launcher slurm: could not find the first host of SLURM_NODELIST={listing!r}; set MASTER_ADDR."
        ) from None


def stop_processes() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank_and_world_size() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) outside a group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_main_process() -> bool:
    """Whether this process writes files and prints."""
    return rank_and_world_size()[0] == 0


def gather(own: T) -> list[T]:
    """What every process hands in, in the order of ranks; every process has to call it, and has all of it.

    Args:
        own: of this process; it is pickled.
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return [own]
    parts: list[Any] = [None] * world_size
    dist.all_gather_object(parts, own)
    return parts
