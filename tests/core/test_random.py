"""The random stream of a sample: the same everywhere, different for everything else."""

import itertools
import subprocess
import sys

import pytest

from mtvision.core.random import generator


def raw(*key: int) -> tuple[int, ...]:
    return tuple(generator(*key).bit_generator.random_raw(2).tolist())


def test_pinned():
    """Raw Philox words: NumPy guarantees them for all platforms and versions."""
    assert raw(0, 0, 0) == (259491006799949737, 4754966410622352325)
    assert raw(1, 2, 3) == (13279728891206244966, 234311473967787377)


def test_another_process_draws_the_same():
    code = "from mtvision.core.random import generator as g; print(g(1, 2, 3).bit_generator.random_raw())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == raw(1, 2, 3)[0]


def test_every_key_has_its_own_stream():
    keys = list(itertools.product(range(6), repeat=3))
    assert len({raw(*key) for key in keys}) == len(keys)


def test_drawing_elsewhere_changes_nothing():
    first = generator(0, 0, 0)
    generator(0, 0, 1).random(1000)
    assert first.random() == generator(0, 0, 0).random()


@pytest.mark.parametrize("key", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (2**32, 0, 0)])
def test_out_of_range(key):
    """(1 + 2·2³², 3, 0) would otherwise be the same stream as (1, 2, 3)."""
    with pytest.raises(ValueError, match=r"must be in 0\.\.4294967295"):
        generator(*key)
