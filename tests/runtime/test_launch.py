"""Launchers: what the environment must hold, and what is said when it does not."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist

from mtvision.core.naming import UnknownNameError
from mtvision.runtime import launch, signals
from mtvision.runtime.heartbeat import LostProcessError
from mtvision.runtime.launch import _VARIABLES, name_of_attempt, rank_and_world_size, start_processes
from mtvision.runtime.signals import listening


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    others = ("MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    known = {name for sets in _VARIABLES.values() for names in sets for name in names}
    for name in (*known, *others):
        monkeypatch.setenv(name, "")  # what `start_processes` sets is taken back, too
        monkeypatch.delenv(name)


@pytest.fixture
def met(monkeypatch):
    """What a group would be started with, in place of starting one."""
    seen = {}

    def rendezvous(url, timeout):
        seen.update({name: os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")})
        yield dist.HashStore(), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    def init(backend, **options):
        seen.update(backend=backend, rank=options["rank"], world_size=options["world_size"])

    monkeypatch.setattr(dist, "rendezvous", rendezvous)
    monkeypatch.setattr(dist, "init_process_group", init)
    return seen


def set_all(monkeypatch, **values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_slurm_without_scontrol_reads_the_list_itself(met, monkeypatch):
    monkeypatch.setenv("PATH", "")
    set_all(monkeypatch, SLURM_PROCID="5", SLURM_NTASKS="8", SLURM_LOCALID="1", SLURM_JOB_ID="4711")
    set_all(monkeypatch, SLURM_JOB_NODELIST="gpu[003-004],gpu9")
    assert start_processes("slurm") == "slurm"
    assert (met["rank"], met["world_size"], met["LOCAL_RANK"]) == (5, 8, "1")
    assert (met["MASTER_ADDR"], met["MASTER_PORT"]) == ("gpu003", str(29500 + 711)), "one port for each job"


def test_slurm_asks_scontrol(met, monkeypatch, tmp_path):
    fake = tmp_path / "scontrol"
    fake.write_text('#!/bin/sh\n[ "$*" = "show hostnames odd{1}" ] && printf "alpha\\nbeta\\n"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    set_all(monkeypatch, SLURM_PROCID="0", SLURM_NTASKS="2", SLURM_LOCALID="0", SLURM_NODELIST="odd{1}")
    start_processes("slurm")
    assert (met["MASTER_ADDR"], met["MASTER_PORT"]) == ("alpha", "29500")


def test_slurm_without_a_list_says_what_to_set(met, monkeypatch):
    monkeypatch.setenv("PATH", "")
    set_all(monkeypatch, SLURM_PROCID="0", SLURM_NTASKS="2", SLURM_LOCALID="0")
    with pytest.raises(RuntimeError, match="SLURM_JOB_NODELIST=''; set MASTER_ADDR"):
        start_processes("slurm")


@pytest.mark.parametrize("names", _VARIABLES["mpi"], ids=["Open MPI", "MPICH"])
def test_mpi(met, monkeypatch, names):
    set_all(monkeypatch, **dict(zip(names, ("3", "4", "1"), strict=True)))
    assert start_processes("mpi") == "mpi"
    assert (met["rank"], met["world_size"], met["LOCAL_RANK"]) == (3, 4, "1")


def test_variables_that_torchrun_set_are_kept(met, monkeypatch):
    set_all(monkeypatch, RANK="1", WORLD_SIZE="2", LOCAL_RANK="1", MASTER_ADDR="other", MASTER_PORT="1234")
    assert start_processes() == "pytorch"
    assert (met["MASTER_ADDR"], met["MASTER_PORT"], met["rank"]) == ("other", "1234", 1)


def test_single_process_by_default():
    assert start_processes() == "none"
    assert rank_and_world_size() == (0, 1)


@pytest.mark.parametrize(
    ("launcher", "command"), [("pytorch", "torchrun"), ("slurm", "srun"), ("mpi", "mpirun")]
)
def test_missing_environment_names_the_command(launcher, command):
    with pytest.raises(RuntimeError, match=f"Start the command through {command}"):
        start_processes(launcher)


def test_unknown_launcher():
    with pytest.raises(UnknownNameError, match="Did you mean 'slurm'"):
        start_processes("slrm")


@pytest.mark.slow
@pytest.mark.fault("a rank that never starts", expected="the others stop after 10 minutes with one line")
@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_that_do_not_come_are_waited_for_in_vain(monkeypatch, rank):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    set_all(monkeypatch, RANK=rank, WORLD_SIZE="2", LOCAL_RANK=rank, MASTER_PORT=port)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    with pytest.raises(LostProcessError, match=rf"rank {rank} of 2 did not meet the others at .*:{port}"):
        start_processes(meeting_minutes=0.01)


@pytest.mark.fault(
    "torchrun keeps what killed processes wrote", expected="no attempt reads what an earlier one told"
)
def test_attempts_have_names_of_their_own():
    store, names = dist.HashStore(), []
    store.set("asks/2", "of a process that was killed before it heard an answer")
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            found = set(pool.map(lambda rank: name_of_attempt(store, rank, 3, 60), (2, 1, 0)))
        names.append(found)
    assert [len(found) for found in names] == [1, 1]
    assert names[0] != names[1]
    with pytest.raises(dist.DistStoreError, match="not all processes asked"):
        name_of_attempt(store, 0, 3, 0.0)


def test_a_store_of_torchrun_is_used_under_the_name_of_the_attempt(met, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    set_all(monkeypatch, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    start_processes()
    assert isinstance(launch._store, dist.PrefixStore)
    monkeypatch.setattr(launch, "_store", None)


def code_of(work) -> int:
    """Exit code of a forked process that does some work and would then end with 3."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.fault(
    "SIGTERM while processes wait for one that was killed", expected="exit code 75 within seconds"
)
def test_a_signal_ends_a_process_that_waits_for_others(monkeypatch):
    monkeypatch.setattr(signals, "PROMPT", 0.2)

    def work():
        with listening() as end, end.not_waiting():
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
            dist.HashStore().get("what nobody writes")

    assert code_of(work) == 75


@pytest.mark.fault("a lost rank, and a group that cannot be closed", expected="exit code 1 within seconds")
def test_a_process_ends_though_a_destructor_waits(monkeypatch):
    monkeypatch.setattr(launch, "rank_and_world_size", lambda: (0, 2))

    def work():
        launch._leave_within(0.2)
        ctypes.PyDLL(None).sleep(60)  # holds the interpreter's lock

    assert code_of(work) == 1


def test_a_block_has_its_threads_and_leaves_those_before():
    before = torch.get_num_threads()
    with launch.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with launch.threads(None):
            assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
