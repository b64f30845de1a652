"""Several processes of a run: signals, killed ranks and workers, launchers, other numbers on resume."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import discs
import pytest
import torch
import warm
from several_processes import SUPPORT, TOOL, attempt, tool, variables

from mtvision.runtime.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
fault = pytest.mark.fault
GROUPED = discs.CONFIG.replace('type="DropoutNet"', 'type="DropoutNet", norm="group"').replace(
    'type="ParallelDecoder"', 'type="ParallelDecoder", norm="group"'
)
LONG = ("training.iterations=5000", "training.val_interval=0")


class Background:
    """`mtvision train` on some processes, to be disturbed once it has taken a step."""

    def __init__(self, folder: Path, processes: int, *options: str) -> None:
        self.run = folder / "run"
        self.files = [folder / "out", folder / "err"]
        config = discs.write_config(folder)
        arguments = [TOOL, "train", config, "--work-dir", self.run, "--cfg-options", *LONG, *options]
        known = {"processes": processes, "variables": variables(dropout=True), "path": [SUPPORT]}
        self.ranks = warm.start(arguments, self.files, **known)
        while not list(self.run.glob("iter_*.pth")):
            assert all(rank.exitcode is None for rank in self.ranks), self.errors
            time.sleep(0.05)

    @property
    def errors(self) -> str:
        return self.files[1].read_text()

    def codes(self, seconds: float = 60) -> list[int]:
        end = time.monotonic() + seconds
        for rank in self.ranks:
            rank.join(max(0.0, end - time.monotonic()))
        found = [rank.exitcode for rank in self.ranks]
        for rank in self.ranks:
            rank.kill()
        return found


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of two ranks, one of which got SIGUSR1."""
    begun = Background(tmp_path_factory.mktemp("stopped"), 2, "training.checkpoint_interval=2")
    os.kill(begun.ranks[1].pid, signal.SIGUSR1)
    return begun, begun.codes()


@fault("SIGUSR1 at one of two ranks", expected="both end after one step, exit code 75")
def test_a_signal_at_one_rank_ends_both_at_one_step(stopped):
    begun, codes = stopped
    assert codes == [75, 75], begun.errors
    steps = set(re.findall(r"after iteration (\d+); checkpoint", begun.errors))
    assert len(steps) == 1
    assert (begun.run / f"iter_{steps.pop()}.pth").is_file()


@pytest.mark.fault(
    "resumed on another number of ranks", expected="said and recorded; --keep-batch keeps the batch"
)
def test_fewer_ranks_keep_the_batch_on_request(stopped, tmp_path):
    begun, _ = stopped
    newest = max(begun.run.glob("iter_*.pth"), key=lambda path: int(path.stem[5:]))
    last = int(newest.stem[5:]) + 1
    config = begun.run.parent / "discs_config.py"
    arguments = ("train", config, "--work-dir", tmp_path / "run", "--resume", newest)
    options = ("--cfg-options", f"training.iterations={last}", "training.val_interval=0")
    done = attempt(1, *arguments, "--keep-batch", *options, dropout=True)
    assert done.returncode == 0, done.stderr
    said = "The 8 images per step were dealt anew on resume: 2 x 4, after iteration"
    assert f"{said} {last - 1} 1 x 8." in done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["world_size"], record["effective_batch"]) == (1, 8)
    refused = attempt(3, *arguments, "--keep-batch", *options, dropout=True)
    assert "the 8 images of a step (2 x 4) cannot be dealt evenly to 3 processes" in refused.stderr


@fault(
    "kill -9 of one of two ranks",
    expected="the other ends; one line names rank, host, pid",
)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_is_named_by_the_other(tmp_path, victim):
    begun = Background(tmp_path, 2, "training.checkpoint_interval=2")
    os.kill(begun.ranks[victim].pid, signal.SIGKILL)
    codes = begun.codes()
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == 1, begun.errors
    named = [line for line in begun.errors.splitlines() if "--resume continues" in line]
    assert len(named) == 1, begun.errors
    assert f"rank {victim}" in named[0]
    if victim == 1:  # rank 0 holds the store: nobody can ask where it was
        assert f"pid {begun.ranks[1].pid})" in named[0]


@fault("kill -9 of a data-loading worker", expected="exit code 1 within seconds, one line with pid and cause")
def test_a_killed_worker_is_named(tmp_path):
    begun = Background(tmp_path, 1, "training.checkpoint_interval=2", "train_data.num_workers=1")
    children = Path(f"/proc/{begun.ranks[0].pid}/task/{begun.ranks[0].pid}/children")
    (worker, *_) = children.read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    assert begun.codes() == [1], begun.errors
    assert (
        f"the process that loads data (pid {worker}) " in begun.errors
    )  # torch may see an exit, or a signal
    assert "most likely the memory was full" in begun.errors


@pytest.mark.long
def test_a_sharded_optimizer_takes_the_steps_of_a_whole_one(tmp_path):
    """Weights, and the state that a checkpoint gathers, are equal bit for bit; one continues the other."""
    config = discs.write_config(tmp_path)
    options = ["training.iterations=4", "training.val_interval=0", "training.checkpoint_interval=2"]
    start = tmp_path / "plain" / "iter_2.pth"
    zero = "training.shard=zero"
    runs = {"plain": ((), ()), "zero": ((), (zero,)), "crossed": (("--resume", start), (zero,))}
    for name, (resume, more) in runs.items():
        arguments = ("--work-dir", tmp_path / name, *resume, "--cfg-options", *options, *more)
        tool(2, "train", config, *arguments, dropout=True)
    plain, *others = (
        load_checkpoint(tmp_path / item / "iter_4.pth") for item in ("plain", "zero", "crossed")
    )
    for other in others:
        for part in ("state_dict", "optimizer"):
            torch.testing.assert_close(other[part], plain[part], rtol=0, atol=0)


@pytest.mark.long
def test_two_machines_meet_through_torchrun(tmp_path):
    """Two agents on the loopback device, one process each, train as two processes of one machine do."""
    config = discs.write_config(tmp_path, GROUPED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--cfg-options", "training.iterations=2", "training.val_interval=0")
    agents = []
    for node in range(2):
        meeting = [
            "--nnodes=2",
            "--nproc-per-node=1",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint=127.0.0.1:{port}",
        ]
        words = ["-m", "torch.distributed.run", *meeting, "--rdzv-id=discs", "--local-addr=127.0.0.1"]
        arguments = [*words, TOOL, "train", config, "--work-dir", tmp_path / "two", *options]
        files = [tmp_path / f"{node}.{name}" for name in ("out", "err")]
        agents += warm.start(arguments, files, variables=variables(), path=[SUPPORT])
    for node, agent in enumerate(agents):
        agent.join(200)
        assert agent.exitcode == 0, (tmp_path / f"{node}.err").read_text()[-3000:]
    tool(2, "train", config, "--work-dir", tmp_path / "one", *options)
    record = json.loads((tmp_path / "two" / "record.json").read_text())
    assert record["world_size"] == 2
    rows = [(tmp_path / name / "losses.jsonl").read_text() for name in ("two", "one")]
    assert rows[0] == rows[1]
