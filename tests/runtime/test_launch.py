"""Launchers: what the environment must hold, and what is said when it does not."""

from __future__ import annotations

import pytest

from mtvision.core.naming import UnknownNameError
from mtvision.runtime.launch import rank_and_world_size, start_processes


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)


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
