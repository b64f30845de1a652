"""Every family against the plain implementation, over many draws, on all six tasks."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mtvision.core.sample import Meta, RawSample
from mtvision.core.task import IGNORE
from mtvision.data.transforms import build_pipeline
from mtvision.protocols import own_protocol

_SPEC = importlib.util.spec_from_file_location(
    "plain_transforms", Path(__file__).parent / "plain_transforms.py"
)
plain = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(plain)

PROTOCOL = own_protocol(
    "six",
    {
        "semseg": {"class_names": [f"c{i}" for i in range(5)]},
        "depth": {},
        "normals": {},
        "edge": {},
        "saliency": {},
        "human_parts": {},
    },
)
TASKS = {task.name: task for task in PROTOCOL.tasks}
SIZE = (40, 56)


def make(seed: int, shape=(37, 53)):
    """A sample in the suite's convention and the same in the papers', with holes in every map that may
    have."""
    rng = np.random.default_rng(seed)

    def blocks(high):
        small = rng.integers(0, high, (shape[0] // 12 + 1, shape[1] // 12 + 1))
        return np.kron(small, np.ones((12, 12), int))[: shape[0], : shape[1]].astype(np.uint8)

    normals = rng.normal(size=(*shape, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    depth = rng.uniform(0.5, 8, (*shape, 1)).astype(np.float32)
    hole = blocks(4) == 0
    semseg = blocks(5)
    semseg[blocks(6) == 0] = IGNORE
    parts = blocks(7) if seed % 3 else np.zeros(shape, np.uint8)
    image = np.kron(rng.integers(0, 256, (shape[0] // 3 + 1, shape[1] // 3 + 1, 3)), np.ones((3, 3, 1), int))
    image = image[: shape[0], : shape[1]].astype(np.uint8)
    edge = (rng.random((*shape, 1)) < 0.1).astype(np.float32)
    theirs = {
        "image": image.astype(np.float32),
        "semseg": semseg.astype(np.float32),
        "depth": np.where(hole[..., None], 0, depth).astype(np.float32),
        "normals": np.where(hole[..., None], 0, normals).astype(np.float32),
        "edge": edge,
        "saliency": blocks(2).astype(np.float32),
        "human_parts": parts.astype(np.float32),
    }
    ours = RawSample(
        image=image,
        labels={
            "semseg": semseg,
            "depth": np.where(hole[..., None], np.nan, depth).astype(np.float32),
            "normals": np.where(hole[..., None], np.nan, normals).astype(np.float32),
            "edge": edge,
            "saliency": theirs["saliency"].astype(np.int64),
            "human_parts": parts,
        },
        tasks=TASKS,
        meta=Meta(id=str(seed), size=shape, original_size=shape),
    )
    return ours, theirs


def compare(ours: RawSample, theirs, *, exact=True, image_tolerance=2e-6):
    assert np.abs(ours.image - theirs["image"]).max() <= image_tolerance
    for name, task in TASKS.items():
        mine, expected = ours.labels[name], theirs[name]
        if task.label == "classes":
            assert (mine == expected).all(), name
            continue
        missing = (expected == 255).all(axis=2, keepdims=True)
        assert (np.isnan(mine) == missing).all(), name
        expected = np.where(missing, np.nan, expected)
        if exact and name != "normals":
            np.testing.assert_array_equal(mine, expected)
        else:
            np.testing.assert_allclose(mine, expected, atol=1e-4)  # renormalised differences


def both(preset, seed, reference, **options):
    ours, theirs = make(seed)
    before = {name: label.copy() for name, label in ours.labels.items()}
    image = ours.image.copy()
    result = build_pipeline({"preset": preset, **options}, PROTOCOL)(ours, np.random.default_rng(seed))
    assert (ours.image == image).all()
    for name, label in before.items():
        np.testing.assert_array_equal(label, ours.labels[name])  # arguments are never written to
    return result, reference(theirs, np.random.default_rng(seed))


@pytest.mark.parametrize("size", [SIZE, (37, 53), (24, 24), (60, 30)])
def test_family_a_training(size):
    for seed in range(40):
        result, expected = both(
            "invpt-train", seed, lambda s, rng: plain.family_a_train(s, rng, size), size=size
        )
        compare(result, expected)
        assert result.image.shape[:2] == size


def test_family_a_evaluation():
    for seed in range(4):
        result, expected = both("invpt-eval", seed, lambda s, _: plain.family_a_eval(s, SIZE), size=SIZE)
        compare(result, expected)
        assert result.meta.padding == (1, 1, 2, 2)
        assert result.meta.size == (37, 53)


def test_family_b_nyud():
    for seed in range(15):
        result, expected = both(
            "survey-train", seed, lambda s, rng: plain.family_b_train(s, rng, SIZE), size=SIZE
        )
        compare(result, expected)


def test_family_b_pascal():
    for seed in range(25):
        result, expected = both(
            "survey-pascal-train",
            seed,
            lambda s, rng: plain.family_b_train(s, rng, SIZE, angles=(-20, 20)),
            size=SIZE,
        )
        # cubic overshoot sits within one float rounding of an 8-bit step in a few pixels
        compare(result, expected, image_tolerance=2e-6)


def test_family_b_evaluation():
    result, expected = both("survey-eval", 1, lambda s, _: plain.family_b_eval(s, SIZE), size=SIZE)
    compare(result, expected)
    kept, _ = both("survey-eval", 1, lambda s, _: s, size=SIZE, labels=False)
    assert kept.image.shape[:2] == SIZE
    assert kept.labels["semseg"].shape == (37, 53)


def test_family_c_training():
    for seed in range(25):
        ours, theirs = make(seed)
        result = build_pipeline("mtan-train", PROTOCOL)(ours, np.random.default_rng(seed))
        expected = plain.family_c_train(theirs, np.random.default_rng(seed))
        assert np.abs(result.image - expected["image"]).max() <= 2e-6
        assert (result.labels["semseg"] == expected["semseg"]).all()
        for name in ("depth", "normals"):  # valid where the channels do not sum to zero
            valid = expected[name].sum(axis=2, keepdims=True) != 0
            assert (np.isnan(result.labels[name]) == ~valid).all()
            np.testing.assert_array_equal(result.labels[name], np.where(valid, expected[name], np.nan))
