"""Start the process group before mmengine does.

mmengine 0.10.7 calls `torch.cuda.set_device` whenever it starts a group, which makes training on several CPU
processes impossible; it leaves an existing group alone.
"""

from __future__ import annotations

import faulthandler
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from mtvision.core.naming import UnknownNameError
from mtvision.runtime.heartbeat import Heartbeat, LostProcessError, Store, causes_named
from mtvision.runtime.signals import end_request, listening

T = TypeVar("T")
Launcher = Literal["none", "pytorch", "slurm", "mpi"]

_STARTED_BY = {"pytorch": "torchrun", "slurm": "srun", "mpi": "mpirun"}
_VARIABLES = {
    "pytorch": [("RANK", "WORLD_SIZE", "LOCAL_RANK")],
    "slurm": [("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")],
    "mpi": [
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),  # MPICH and Intel MPI
    ],
}
"""{launcher: sets of variables for rank, number of processes and rank on the machine}."""


def start_processes(
    launcher: str | None = None, *, timeout_minutes: int = 60, meeting_minutes: float = 10
) -> Launcher:
    """Join the process group that the launcher's environment describes.

    Args:
        launcher: `none`, `pytorch` (torchrun), `slurm` (srun) or `mpi` (Open MPI, MPICH); None means
            torchrun if its variables are set, else a single process.
        timeout_minutes: how long ranks wait for one another; evaluation of a large split takes a while.
        meeting_minutes: how long they wait for one another at the start.

    Returns:
        The launcher in use. Outside a group nothing is started.

    Raises:
        UnknownNameError: no such launcher.
        RuntimeError: the environment lacks the launcher's variables.
        LostProcessError: the others did not come.
    """
    chosen = launcher or ("pytorch" if "RANK" in os.environ and "WORLD_SIZE" in os.environ else "none")
    if chosen == "none":
        return "none"
    if chosen not in _VARIABLES:
        raise UnknownNameError("launcher", chosen, ("none", *_VARIABLES))
    if dist.is_initialized():
        return chosen  # type: ignore[return-value]
    names = _names(chosen, os.environ)
    for target, source in zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), names, strict=True):
        os.environ[target] = os.environ[source]
    if chosen == "slurm" and "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = _first_slurm_host(os.environ)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(_port(os.environ)))
    backend = "gloo"
    if torch.cuda.is_available():  # not run on a GPU yet
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"  # requests to end are agreed on without waiting for the GPU
    timeout = timedelta(minutes=timeout_minutes)
    global _store
    with end_request().not_waiting():
        _store, rank, processes = _meet(meeting_minutes)
        dist.init_process_group(backend, store=_store, rank=rank, world_size=processes, timeout=timeout)
    return chosen  # type: ignore[return-value]


def _meet(minutes: float) -> tuple[Any, int, int]:
    """(store, rank, number of processes), once all have come.

    Raises:
        LostProcessError: they did not.
    """
    try:
        store, rank, processes = next(
            dist.rendezvous("env://", timeout=timedelta(minutes=minutes))  # type: ignore[attr-defined]
        )
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            name = name_of_attempt(store, rank, processes, 60 * minutes)
            store = dist.PrefixStore(name, store)  # type: ignore[attr-defined]
        return store, rank, processes
    except (dist.DistStoreError, dist.DistNetworkError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise LostProcessError(
            f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} did not meet the others at {place} "
            f"within {minutes:g} min ({str(error).splitlines()[0]}). Their own logs may say why; "
            "MASTER_ADDR and MASTER_PORT must be those of rank 0"
        ) from None


def name_of_attempt(store: Store, rank: int, processes: int, seconds: float) -> str:
    """A name that the processes of this attempt agree on, and that no earlier attempt had.

    torchrun 2.14 keeps one store over its restarts. What a killed process wrote there is read by the next
    attempt, e.g. the address of that process. Numbers of restarts do not help, because every machine counts
    its own. Rank 0 therefore draws a name. Each process asks for it under a key that it draws itself.

    Args:
        store: that all attempts share.
        rank: of this process.
        processes: how many there are.
        seconds: how long the processes wait for one another.

    Raises:
        DistStoreError: not all processes came.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"asks/{rank}", own)
        name = store.get(f"answer/{own}").decode()
        store.set(f"heard/{name}/{rank}", "yes")
        return name
    others, answered = range(1, processes), set()
    end = time.monotonic() + seconds
    while not all(store.check([f"heard/{own}/{other}"]) for other in others):
        for other in others:
            asked = store.get(f"asks/{other}").decode() if store.check([f"asks/{other}"]) else None
            if asked and asked not in answered:
                answered.add(asked)
                store.set(f"answer/{asked}", own)
        if time.monotonic() > end:
            raise dist.DistStoreError("not all processes asked for the name of this attempt")
        time.sleep(_POLL)
    return own


_POLL = 0.05
"""Seconds between two looks into the store."""

_store: Any = None
"""Through which the processes met; None outside a group of `start_processes`."""


@contextmanager
def joined(launcher: str | None = None) -> Iterator[Launcher]:
    """Be one of the launcher's processes: in their group, listening to signals, watching over the others.

    Args:
        launcher: as for `start_processes`.

    Raises:
        As `start_processes`, and
        TrainingInterruptedError: a signal or a time limit ended the block.
        LostProcessError: another process, or a worker that loads data, was killed or is stuck.
    """
    with listening():
        chosen, done = start_processes(launcher), False
        try:
            with _watch(), causes_named():
                yield chosen
            done = True
        finally:
            if not done:
                _leave_within(LEAVING)
            stop_processes()


LEAVING = 20.0
"""Seconds in which one of several processes ends after an error; torchrun waits for 30."""


def _leave_within(seconds: float) -> None:
    """End this process, one of several, with code 1 if it still exists after so long.

    Destructors of a group may wait for a lost process, and hold the interpreter's lock. faulthandler's thread
    needs neither.
    """
    if rank_and_world_size()[1] > 1:
        file = os.open(os.devnull, os.O_WRONLY)  # open until the end; the cause is said in one line already
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)


def _watch() -> AbstractContextManager[Any]:
    rank, processes = rank_and_world_size()
    if processes == 1 or _store is None:
        return nullcontext()
    # A connection of its own: neither the watch nor torch waits for the other.
    store = dist.PrefixStore("mtvision", _store.clone())  # type: ignore[attr-defined]
    return Heartbeat(store, rank, processes)


def _names(launcher: str, environment: Mapping[str, str]) -> tuple[str, str, str]:
    """The launcher's variables that are set.

    Raises:
        RuntimeError: some are not.
    """
    sets = _VARIABLES[launcher]
    lacking = [[name for name in names if name not in environment] for names in sets]
    for names, missing in zip(sets, lacking, strict=True):
        if not missing:
            return names
    nearest = min(lacking, key=len)
    raise RuntimeError(
        f"--launcher {launcher}: the environment has no {', '.join(nearest)}. Start the command through "
        f"{_STARTED_BY[launcher]}, or use --launcher none."
    )


def _first_slurm_host(environment: Mapping[str, str]) -> str:
    listing = environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST", "")
    try:
        command = ["scontrol", "show", "hostnames", listing]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        found = first_host(listing)  # a container may have no `scontrol`
    if found is None:
        raise RuntimeError(
            f"--launcher slurm: could not find the first host of SLURM_JOB_NODELIST={listing!r}; set "
            "MASTER_ADDR."
        )
    return found


def first_host(listing: str) -> str | None:
    """The first host of Slurm's short form of a list; None if it is not understood.

    >>> first_host("gpu[003-006,9],login1"), first_host("a1"), first_host("")
    ('gpu003', 'a1', None)
    """
    found = re.match(r"([\w.-]+?)(?:\[(\w+)[^\]]*\]([\w.-]*))?(?:,|$)", listing)
    return "".join(part or "" for part in found.groups()) if found else None


def _port(environment: Mapping[str, str]) -> int:
    """Where the processes meet: another port for every job of Slurm, since jobs share machines."""
    job = environment.get("SLURM_JOB_ID", "")
    return 29500 + (int(job) % 2000 if job.isdigit() else 0)


def stop_processes() -> None:
    """Leave the process group, if there is one."""
    global _store
    _store = None
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


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch's operators use so many threads inside a `with` block; afterwards as many as before.

    More threads than free cores cost time. A thread that has done its part waits for the others in a busy
    loop, on a core that a data-loading worker could use.

    Args:
        count: at least 1; None = as they are (`OMP_NUM_THREADS`, else the number of cores).
    """
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
