"""Records for the tests of this folder."""

from copy import deepcopy

from mtvision.protocols.tasks import depth, semseg
from mtvision.report.comparable.task_entry import describe_tasks
from mtvision.report.provenance import config_entry
from mtvision.report.record import Record

TASKS = describe_tasks((semseg(("a", "b")), depth()))
SHA = "0" * 63 + "1"
DIGEST = "0" * 15 + "1"


def scored(images, fingerprint=SHA, labels=SHA):
    """What was scored: as many images, all labels with one fingerprint."""
    return {
        "images": images,
        "split": "part",
        "fingerprint": fingerprint,
        "labels": dict.fromkeys(("semseg", "depth"), labels),
    }


def make_record(miou=0.5, rmse=0.6, *, seed=0, row="row", **changes):
    values = {
        "protocol": "synthetic-scenes",
        "protocol_title": "Synthetic scenes",
        "method": "ParallelDecoder",
        "backbone": "tiny",
        "provenance": "ours",
        "tasks": TASKS,
        "scores": {"semseg": {"miou": miou, "pixel_accuracy": 0.75}, "depth": {"rmse": rmse}},
        "config": config_entry("demo", f"name = '{row}'\nseed = {seed}\n"),
        "code": {"commit": "a" * 40, "dirty": False},
        "data": {"train": None, "test": {"hash": SHA, "split": "val", "images": 8}},
        "protocol_digest": None,
        "scored": scored(8),
        "seed": seed,
        "world_size": 1,
        "effective_batch": 4,
        "precision": {"train": "fp32", "evaluation": "fp32"},
        "versions": {"python": "3.12"},
        "cost": {
            "image_size": [96, 128],
            "batch_size": 1,
            "tasks": ["semseg", "depth"],
            "parameters": {"total": 1_234_567, "trainable": 1_234_567, "parts": {}},
            "macs": {"total": 2_500_000_000, "counted": "convolutions", "parts": {}},
            "latency": None,
            "peak_memory": None,
        },
        "created": "2026-01-02T03:04:05Z",
    }
    return Record(**deepcopy({**values, **changes}))


def make_gain(record, miou=0.4, rmse=0.8):
    parts = {
        "semseg": 100 * (record.scores["semseg"]["miou"] - miou) / miou,
        "depth": -100 * (record.scores["depth"]["rmse"] - rmse) / rmse,
    }
    return {
        "convention": "headline",
        "percent": sum(parts.values()) / 2,
        "parts": parts,
        "higher_is_better": True,
        "baseline": {"name": "single-task", "scores": {"semseg": {"miou": miou}, "depth": {"rmse": rmse}}},
    }
