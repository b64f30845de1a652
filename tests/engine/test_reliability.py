"""Runs that are killed at random moments, restarted by torchrun, or long; in full by `make fault-tests`."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import discs
import pytest
import soak
import warm
from kills import CASES, battery, kills_of
from several_processes import SUPPORT, TOOL, tool, variables

KILLS = int(os.environ.get("KILLS", "3"))
"""Over all cases."""
SOAK = int(os.environ.get("SOAK", "0"))
"""Iterations; without it a short run shows that the measurement works."""
pytestmark = pytest.mark.slow


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", [name for name in CASES if kills_of(name, KILLS)])
@pytest.mark.fault(
    "kill -9 at random moments: one and two ranks, bf16 with EMA, UPGrad, MTMamba, slimmable",
    expected="losses, weights, scores and files of an undisturbed run; no line twice",
)
def test_kills_at_random_moments_change_nothing(case, tmp_path, record_property):
    record_property("measured", battery(case, kills_of(case, KILLS), tmp_path))


@pytest.mark.timeout(1200)
@pytest.mark.fault(
    "a long run with many evaluations", expected="memory, descriptors, threads and processes do not grow"
)
def test_nothing_grows_in_a_long_run(tmp_path, record_property):
    iterations, evaluations = (SOAK, SOAK // 10) if SOAK else (60, 5)
    out = tmp_path / "found.json"
    words = ["--iterations", iterations, "--evaluations", evaluations, "--out", out]
    done = warm.run([SUPPORT / "soak.py", *words], variables=variables(), path=[SUPPORT], timeout=900)
    found = json.loads(out.read_text())
    assert found["evaluations"] >= evaluations
    slopes = [soak.Slope(**item) for item in found["slopes"]]
    assert [item.name for item in slopes] == list(soak.BOUNDS)
    assert all(item.low <= item.value <= item.high for item in slopes), done.stdout
    if SOAK:  # a short run is all warm-up, and its slopes say nothing
        assert not [item.line() for item in slopes if item.grows()], done.stdout
        record_property("measured", soak.table(found))


def main_process(run: Path, attempt: int, agent) -> int:
    """Wait until an attempt has written a checkpoint; the pid of its rank 0."""
    path = run / "attempts" / f"{attempt:03d}.json"
    end = time.monotonic() + 400
    while not (path.is_file() and json.loads(path.read_text())["steps"]):
        assert agent.exitcode is None
        assert time.monotonic() < end
        time.sleep(0.01)
    return json.loads(path.read_text())["pid"]


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.fault(
    "torchrun --max-restarts=3, a rank killed twice", expected="the losses of an undisturbed run"
)
def test_torchrun_restarts_a_run_twice(tmp_path):
    config = discs.write_config(tmp_path)
    options = ["training.iterations=90", "training.checkpoint_interval=5", "training.val_interval=30"]
    arguments = ["train", config, "--cfg-options", *options, "--work-dir"]
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    cut, files = tmp_path / "cut", [tmp_path / "out", tmp_path / "err"]
    (agent,) = warm.start(
        [*words, TOOL, *arguments, cut], files, variables=variables(dropout=True), path=[SUPPORT]
    )
    for attempt in (1, 2):
        first = main_process(cut, attempt, agent)
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        others = [int(pid) for pid in children if int(pid) != first]
        os.kill(first if attempt == 1 else others[-1], signal.SIGKILL)
    agent.join(400)
    said = files[1].read_text()
    assert agent.exitcode == 0, said[-3000:]
    assert "forcefully exiting" not in said, "a rank did not end by itself"
    tool(2, *arguments, tmp_path / "whole", dropout=True)
    for name in ("losses.jsonl", "validations.jsonl"):
        assert (cut / name).read_text() == (tmp_path / "whole" / name).read_text()
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in ("cut", "whole")]
    assert records[0]["scores"] == records[1]["scores"]
    assert records[0]["training"]["restarts"] == 2
