"""Choice of training images that are held out for searches, balancing by validation and merging."""

from __future__ import annotations

import hashlib

HELD_OUT_SHARE = 0.2
"""Share that is held out unless something else is said (as in BMTAS, BMVC 2020)."""


def is_held_out(image_id: str, share: float = HELD_OUT_SHARE) -> bool:
    """Whether a training image belongs to the held-out slice.

    Depends on the id alone: independent of order, number of images, processes and platform. A larger share
    holds out a superset.

    Args:
        image_id: as in `Meta.id`.
        share: of all ids, in 0..1.

    Raises:
        ValueError: `share` is not in 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"held_out is a share of the training images, in 0..1; got {share}.")
    digest = hashlib.sha256(f"held out: {image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
