"""Gradients of 2 processes with half the batch each equal those of 1 process with all of it (gloo)."""

from pathlib import Path

import pytest
import torch
from several_processes import two_ranks
from step_rank_worker import run_job
from step_toy import make_samples

pytestmark = pytest.mark.slow  # two processes that import torch and compute every job
HERE = Path(__file__).parent
EIGHT = make_samples(8)
# Only process 0 has depth labels (samples 0-3), only process 1 has edges; nobody has them in the third batch.
SPLIT = make_samples(8, 2, {i: {"edge"} if i < 4 else {"depth"} for i in range(8)})
DISJOINT = make_samples(8, 5, {i: {"edge", "semseg"} if i < 4 else {"depth"} for i in range(8)})
SEMSEG_ONLY = make_samples(8, 3, {i: {"edge", "depth"} for i in range(8)})
EMPTY_HALF = make_samples(8, 4, {i: {"semseg", "edge", "depth"} for i in range(4, 8)})

STAGES = {"products": "stages"}
JOBS = {
    "upgrad": {"balancer": {"type": "UPGrad"}, "step": STAGES, "batches": [EIGHT], "regulariser": 0.1},
    "matrix": {"balancer": {"type": "UPGrad"}, "batches": [EIGHT, SPLIT, EMPTY_HALF], "regulariser": 0.1},
    "accumulated": {"balancer": {"type": "UPGrad"}, "step": STAGES, "batches": [EIGHT, make_samples(8, 9)]},
    "random": {
        "balancer": {"type": "TorchJD", "aggregator": "PCGrad"},
        "step": STAGES,
        "batches": [EIGHT, EIGHT],
    },
    "partial": {"balancer": {"type": "TorchJD", "aggregator": "Sum"}, "batches": [SPLIT, SEMSEG_ONLY, SPLIT]},
    "partial upgrad": {"balancer": {"type": "UPGrad"}, "step": STAGES, "batches": [EIGHT, SPLIT, EMPTY_HALF]},
    "selective": {
        "balancer": {"type": "TorchJD", "aggregator": "Sum"},
        "batches": [EIGHT, DISJOINT, EIGHT],
        "selective": True,
    },
    "fixed": {"balancer": {"type": "FixedWeights"}, "batches": [EIGHT]},
    "uncertainty": {"balancer": {"type": "Uncertainty"}, "batches": [EIGHT]},
    "gradnorm": {"balancer": {"type": "GradNorm"}, "step": STAGES, "batches": [EIGHT, make_samples(8, 9)]},
    "nash": {"balancer": {"type": "NashMTL"}, "step": STAGES, "batches": [EIGHT, SPLIT]},
    "reused": {
        "balancer": {"type": "MGDA"},
        "step": {"every": 2, **STAGES},
        "batches": [EIGHT, make_samples(8, 9)],
        "regulariser": 0.1,
    },
    "geometric": {"balancer": {"type": "Scalarizer"}, "batches": [EIGHT]},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    """What each of two processes computed for every job."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.save(JOBS, folder / "jobs.pt")
    return two_ranks(HERE / "step_rank_worker.py", folder, folder / "jobs.pt")


def assert_equal(ours, theirs, rtol=1e-12):
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        if gradient is None or theirs[name] is None:
            assert gradient is theirs[name] is None, name
        else:
            # 1e-12 of the largest entry: sums over 8 images are taken in another order
            torch.testing.assert_close(
                gradient, theirs[name], rtol=rtol, atol=rtol * float(theirs[name].abs().max())
            )


@pytest.mark.parametrize("job", list(JOBS))
def test_processes_agree(results, job):
    for kind in ("gradients", "balancer"):
        assert_equal(results[0][job][kind], results[1][job][kind], rtol=0)


@pytest.mark.parametrize("job", list(JOBS))
def test_means_that_travel_during_a_pass_change_no_bit(results, job):
    for rank in range(2):
        found, want = results[rank][job], results[rank][job]["waiting"]
        assert found["logs"] == want["logs"]
        for kind in ("gradients", "balancer"):
            assert_equal(found[kind], want[kind], rtol=0)


ALIKE = ["upgrad", "accumulated", "random", "fixed", "uncertainty", "gradnorm", "geometric", "reused"]


@pytest.mark.parametrize("job", ALIKE)
def test_two_processes_of_four_equal_one_of_eight(results, job):
    alone = run_job(JOBS[job], rank=0, world=1)
    for kind in ("gradients", "balancer"):
        assert_equal(results[0][job][kind], alone[kind])


def test_averaging_after_aggregation_would_be_another_method(results):
    """Guards the test above: UPGrad is not linear."""
    halves = [
        run_job({"balancer": {"type": "UPGrad"}, "batches": [part], "regulariser": 0.1}, 0, 1)["gradients"]
        for part in (EIGHT[:4], EIGHT[4:])
    ]
    naive = (halves[0]["trunk.weight"] + halves[1]["trunk.weight"]) / 2
    assert not torch.allclose(naive, results[0]["upgrad"]["gradients"]["trunk.weight"], rtol=1e-3)


@pytest.mark.parametrize("job", ["partial", "selective"])
def test_absent_tasks_count_as_zero_rows(results, job):
    """With `Sum` the result must be the mean over processes of ordinary gradients of their own losses."""
    ours = results[0][job]["gradients"]
    alone = JOBS[job] | {"balancer": {"type": "FixedWeights"}}
    parts = [
        run_job(alone | {"batches": [batch[half]]}, 0, 1)["gradients"]
        for batch in JOBS[job]["batches"]
        for half in (slice(0, 4), slice(4, 8))
    ]
    for name, gradient in ours.items():
        present = [part[name] for part in parts if part[name] is not None]
        if gradient is None:
            assert not present
        else:
            torch.testing.assert_close(gradient, sum(present) / 2, rtol=1e-10, atol=1e-13)


def test_a_process_without_any_label_takes_part(results):
    logs = [results[rank]["partial upgrad"]["logs"][2] for rank in range(2)]
    assert "loss/semseg" in logs[0]
    assert logs[1] == {"total": 0.0}
