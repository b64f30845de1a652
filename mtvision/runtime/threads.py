"""How many threads the network has on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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
    import torch  # settings name a number, and reading them costs no torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
