"""Point clouds as mOSD has them, for tests."""

from __future__ import annotations

import struct

import numpy as np

HEADER = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS label x y z rgba
SIZE 4 4 4 4 4
TYPE U F F F U
COUNT 1 1 1 1 1
WIDTH {width}
HEIGHT {height}
VIEWPOINT 0 0 0 1 0 0 0
POINTS {points}
DATA binary_compressed
"""


def arrays(seed=0, height=24, width=32):
    """A table that slopes away with two objects on it, and a margin without depth."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    depth = np.broadcast_to(np.arange(1500, 1500 - 10 * height, -10)[:, None], (height, width)).copy()
    label = np.ones((height, width), np.int64)
    label[8:16, 8:14], label[8:16, 14:20], label[8:12, 14:20] = 20, 31, 30
    depth[:, -6:], label[:, -6:] = 0, 0
    return rgb, depth.astype(np.uint16), label.astype(np.uint8)


def write_pcd(path, rgb, depth, label, *, organised=True, pack=None):
    height, width = depth.shape if organised else (1, depth.size)
    z = np.where(depth > 0, depth / 1000, np.nan).astype("<f4")
    packed = (rgb.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2).astype("<u4")
    plain = b"".join(part.tobytes() for part in (label.astype("<u4"), z, z, z, packed))
    literals = b"".join(
        bytes([len(part) - 1]) + part for part in (plain[i : i + 32] for i in range(0, len(plain), 32))
    )
    head = HEADER.format(width=width, height=height, points=width * height).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    body = literals if pack is None else pack(literals)
    path.write_bytes(head + struct.pack("<II", len(body), len(plain)) + body)
