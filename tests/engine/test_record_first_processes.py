"""The record comes first in real processes: on a disk that takes no more, and where one rank fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import discs
import pytest
import warm
from several_processes import SUPPORT, variables

from mtvision.engine.records import NOT_YET
from mtvision.report.record import Record
from mtvision.runtime.lock import LOCK_FILE

SHORT = ("training.iterations=2", "training.val_interval=0", "evaluation.constant_predictor=4")


LIMITED = """
import resource, sys
import discs
from mtvision.cli.main import call
from mtvision.engine import evaluate
original = evaluate.write_or_rescue
def then_full(*arguments):
    found = original(*arguments)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
    return found
evaluate.write_or_rescue = then_full
sys.exit(call("train", sys.argv[1:]))
"""


def python(*arguments):
    """A fresh interpreter whose output is a pipe, which no limit of file sizes concerns."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, env={**os.environ, **variables()}, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_a_real_limit_after_the_record(tmp_path):
    """No file may grow any more once the record is there: table, pictures and TensorBoard fail."""
    pytest.importorskip("tensorboard")
    config = discs.write_config(tmp_path)
    arguments = ["--work-dir", tmp_path / "run", "--cfg-options", *SHORT, "logging.tensorboard=true"]
    done = python("-c", LIMITED.format(limit=64), config, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    stored = Record.load(tmp_path / "run" / "record.json")
    assert (stored.whole, stored.failures) == (True, [NOT_YET])  # it cannot be rewritten either
    for what in ("table.md", "pictures", "TensorBoardLogger stopped", "failures in record.json"):
        assert f"{what}: OSError: [Errno 27] File too large" in done.stderr
    assert [path.name for path in (tmp_path / "run").rglob(".*")] == [LOCK_FILE]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_a_real_limit_before_the_record(tmp_path):
    """The record is larger than any file may be: it is printed."""
    config = discs.write_config(tmp_path)
    text = (
        LIMITED.format(limit=64)
        .replace("    found = original(*arguments)\n", "")
        .replace("    return found", "    return original(*arguments)")
    )
    arguments = ["--work-dir", tmp_path / "run", "--cfg-options", *SHORT]
    done = python("-c", text, config, *arguments)
    assert done.returncode == 1, done.stderr[-3000:]
    printed = done.stdout[: done.stdout.index("\n}\n") + 3]
    assert Record.from_json(json.loads(printed)).whole
    assert "the content was printed: keep it" in done.stderr


RANKS = """
import os, sys
import discs
from mtvision.cli.main import call
from mtvision.engine import evaluate
original = evaluate.measure_constant
def fail_on_one(*arguments):
    if os.environ["RANK"] == "{rank}":
        raise RuntimeError("only here")
    return original(*arguments)
evaluate.measure_constant = fail_on_one
sys.exit(call("train", sys.argv[1:]))
"""


@pytest.mark.fault("one rank's part of the scoring fails", expected="no rank waits for it")
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_no_process_waits_for_one_whose_part_failed(rank, tmp_path):
    config = discs.write_config(tmp_path)
    script = tmp_path / "ranks.py"
    script.write_text(RANKS.format(rank=rank))
    arguments = [script, config, "--work-dir", tmp_path / "run", "--cfg-options", *SHORT]
    done = warm.run(arguments, variables=variables(), path=[SUPPORT], processes=2)
    assert done.returncode == 1, done.stderr[-3000:]
    record = Record.load(tmp_path / "run" / "record.json")
    assert record.missing == [
        "constant predictor: RuntimeError: only here; score again with `mtvision test CONFIG CHECKPOINT`"
    ]
    assert record.cost
    assert (tmp_path / "run" / "pictures").is_dir()
