"""Some forty made-up records of three protocols, and work directories beside two of them."""

import json
import math
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw
from report_records import make_gain, make_record

from mtvision.protocols import get_protocol
from mtvision.protocols.tasks import edge, semseg
from mtvision.report.comparable.task_entry import describe_tasks
from mtvision.report.provenance import config_entry
from mtvision.report.record import Record

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'{{7*7}}<!--\u2028\u202e\x1b]0;"

METHODS = (
    "InvPT",
    "MTMamba",
    "Parallel",
    "Parallel + UPGrad",
    "Cross-stitch",
    "PAD-Net",
    "MTI-Net",
    "TaskPrompter",
)
BACKBONES = ("vit_large_patch16_384", "swin_large_patch4_window12_384", "swin_tiny_patch4_window7_224")
BASE = {
    "semseg": ("miou", 0.52, 1),
    "depth": ("rmse", 0.55, -1),
    "normals": ("mean", 19.6, -1),
    "edge": ("odsF", 0.77, 1),
}


def wiggle(*numbers):
    """A repeatable number in -1..1."""
    return math.sin(sum((position + 1) * 12.9898 * number for position, number in enumerate(numbers, 1)))


def gain_of(tasks, scores, baseline):
    parts = {}
    for entry in tasks:
        name, headline = entry["name"], entry["headline"]
        base = baseline[name][headline]
        sign = 1 if entry["higher_is_better"] else -1
        parts[name] = sign * 100 * (scores[name][headline] - base) / base
    return {
        "convention": "headline",
        "percent": math.fsum(parts.values()) / len(parts),
        "parts": parts,
        "higher_is_better": True,
        "baseline": {"name": "single-task, made up", "scores": baseline},
    }


def cost_of(tasks, parameters, macs, latency):
    return {
        "image_size": [448, 576],
        "batch_size": 1,
        "tasks": [entry["name"] for entry in tasks],
        "parameters": {"total": int(parameters), "trainable": int(parameters), "parts": {}},
        "macs": {"total": int(macs), "counted": "convolutions and products", "parts": {}},
        "latency": {
            "median_ms": latency,
            "min_ms": latency - 1,
            "max_ms": latency + 2,
            "repeats": 20,
            "images_per_second": 1000 / latency,
            "device": "made-up device",
            "threads": 2,
        },
        "peak_memory": {"bytes": 900_000_000, "device": "made-up device", "counted": "tensors"},
    }


def nyud_records():
    """Eight methods, three seeds each."""
    tasks = describe_tasks(get_protocol("nyud-invpt").tasks)
    baseline = {name: {score: value} for name, (score, value, _) in BASE.items()}
    records = []
    for index, method in enumerate(METHODS):
        for seed in range(3):
            scores = {
                name: {
                    score: value
                    * (1 + sign * (0.035 * wiggle(index, 1.7) + 0.006 * wiggle(index, seed, value)))
                }
                for name, (score, value, sign) in BASE.items()
            }
            scores["semseg"]["pixel_accuracy"] = 0.78
            records.append(
                make_record(
                    seed=seed,
                    row=f"nyud {index}",
                    method=method,
                    backbone=BACKBONES[index % 3],
                    protocol="nyud-invpt",
                    protocol_title="NYUD-v2",
                    tasks=tasks,
                    scores=scores,
                    gain=gain_of(tasks, scores, baseline),
                    command=f"python tools/train.py configs/made_up_{index}.py",
                    cost=cost_of(
                        tasks,
                        4e7 * 1.45**index,
                        6e10 * 1.35 ** ((index * 3) % 8),
                        20 * 1.3 ** ((index * 5) % 8),
                    ),
                    training={"iterations": 40000, "hours": 7.25},
                )
            )
    return records


def small_records():
    """Six rows of another protocol in two seeds, one of them a smoke run; two of a protocol of own data."""
    tasks = describe_tasks(get_protocol("synthetic-scenes").tasks)
    base = {"miou": 0.3, "rmse": 2.0, "mean": 30.0, "odsF": 0.55, "maxF": 0.5}
    records = []
    for index in range(6):
        for seed in range(2):
            scores = {
                entry["name"]: {
                    entry["headline"]: base[entry["headline"]] * (1 + 0.1 * wiggle(index, seed, place))
                }
                for place, entry in enumerate(tasks)
            }
            records.append(
                make_record(
                    seed=seed,
                    row=f"small {index}",
                    method=f"Small {index}",
                    backbone="resnet18",
                    tasks=tasks,
                    scores=scores,
                    provenance="smoke" if index == 5 else "ours",
                    cost=cost_of(tasks, 2e6 * 1.5**index, 2e8 * 1.4**index, 9 + 2 * index),
                    constant={entry["name"]: {entry["headline"]: 0.05} for entry in tasks}
                    if seed == index == 0
                    else None,
                )
            )
    own = describe_tasks((semseg(("a", "b")), edge()))
    scores = {"semseg": {"miou": 0.5}, "edge": {"odsF": 0.7}}
    records += [
        make_record(
            protocol="my-data",
            protocol_title="My data",
            tasks=own,
            scores=scores,
            method=f"Own {index}",
            row=f"own {index}",
        )
        for index in range(2)
    ]
    return records


def hostile_record():
    """A record with markup in every text field."""
    tasks = [{**entry, "evaluator": HOSTILE, "unit": HOSTILE} for entry in make_record().tasks]
    record = make_record(tasks=tasks)
    gain = make_gain(record)
    return replace(
        record, method=HOSTILE, backbone=HOSTILE, source=HOSTILE, protocol_title=HOSTILE, command=HOSTILE,
        notes=[HOSTILE], config=config_entry(HOSTILE, HOSTILE), versions={HOSTILE: HOSTILE},
        precision={"train": HOSTILE, "evaluation": HOSTILE}, created=HOSTILE, protocol="own-data",
        gain={**gain, "baseline": {**gain["baseline"], "name": HOSTILE}}, training={"device": HOSTILE},
        checkpoint={"sha256": HOSTILE, "file": HOSTILE}, constant={"semseg": {"miou": 0.1}},
        cost={**record.cost, "latency": {"median_ms": 1.0, "device": HOSTILE},
              "macs": {"total": 1, "counted": HOSTILE}, "peak_memory": {"bytes": 1, "device": HOSTILE}},
    )  # fmt: skip


def board_records() -> list[Record]:
    """All of them."""
    return [*nyud_records(), *small_records()]


def write_run(folder: Path, record: Record, colour: int, steps: int = 500, pictures: int = 2) -> None:
    """A work directory: record, log and pictures."""
    folder.mkdir(parents=True)
    record.save(folder / "record.json")
    with (folder / "losses.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            decay = 1 / (1 + 4 * step / steps)
            losses = {
                f"loss/{entry['name']}": (2 + place) * decay * (1 + 0.15 * wiggle(step, place))
                for place, entry in enumerate(record.tasks)
            }
            line = {
                "iter": step,
                "lr": 1e-3 * (1 - step / (steps + 1)),
                **losses,
                "total": sum(losses.values()),
            }
            file.write(json.dumps(line) + "\n")
    (folder / "pictures").mkdir()
    for number in range(pictures):
        picture = Image.new("RGB", (960, 260), "white")
        draw = ImageDraw.Draw(picture)
        for place in range(4):
            left = 20 + 235 * place
            draw.rectangle((left, 20, left + 215, 180), fill=(30 + 50 * place, (40 * number) % 255, colour))
            size = 20 + 12 * place + 10 * number
            draw.ellipse((left + 60, 60, left + 60 + size, 60 + size), fill=(250, 230, colour))
        picture.save(folder / "pictures" / f"image-{number}.png")


def write_site(root: Path) -> tuple[Path, list[Path]]:
    """Record files in `root/results`, work directories of two rows in `root/runs`."""
    records = board_records()
    for place, record in enumerate(records):
        record.save(root / "results" / f"{place:02}.json")
    chosen = [records[0], records[3]]
    for place, record in enumerate(chosen):
        write_run(root / "runs" / f"run{place}", record, 60 + 150 * place)
    return root / "results", [root / "runs"]
