"""The timed variants count the same, so that their times may be compared; whole-size maps work."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from mtvision.metrics.boundary.speed import realistic_maps, variants


@pytest.mark.slow
def test_variants_agree():
    results = {name: run() for name, run in variants(thresholds=2).items()}
    expected = results["benchmark"].matched_truth.tolist()
    assert [int(found.truth.sum()) for found in results["every threshold matched"]] == expected
    assert results["dense assignment"] == expected


@pytest.mark.slow
def test_extrapolation_and_memory():
    """In a fresh process; that of the tests holds more here, which must not count."""
    code = (
        "import json; from mtvision.metrics.boundary.speed import extrapolate\n"
        "print(json.dumps(extrapolate(images=654, sample=1, cores=2)))"
    )
    held = np.ones(600 * 2**17)  # 600 MiB
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    del held
    found = json.loads(done.stdout)
    assert 0.015 < found["boundary_share"] < 0.03
    assert found["minutes"] == pytest.approx(found["seconds_per_image"] * 654 / 2 / 60)
    assert found["peak_megabytes"] < 500


def test_maps_repeat():
    first, second = realistic_maps(3, size=(40, 50)), realistic_maps(3, size=(40, 50))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()
