"""What the timing of slimmable networks times."""

from __future__ import annotations

import pytest
import torch

from mtvision.protocols.tasks import depth
from mtvision.search.width_speed import variants


@pytest.mark.slow
def test_variants_are_the_networks_that_their_names_say():
    found = variants((depth(),))
    for ratio in (0.5, 0.25):
        slim, exported = found[f"slimmable, width {ratio:g}"](), found[f"exported, width {ratio:g}"]()
        torch.testing.assert_close(slim["depth"], exported["depth"], rtol=1e-4, atol=1e-4)
    full = found["slimmable, width 1"]()["depth"]
    assert full.shape == found["plain network"]()["depth"].shape
    assert not torch.allclose(full, slim["depth"])
