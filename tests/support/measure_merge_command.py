"""Peak memory of `mtvision merge` at the size of a real backbone, with random weights.

    python tests/support/measure_merge_command.py FOLDER --write
    python tests/support/measure_merge_command.py FOLDER --method ties

The first writes a base and three parents as safetensors. The second merges them and prints JSON: bytes of one
checkpoint, by how much resident memory grew at most, their ratio, and seconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import threading
import time
from pathlib import Path

import torch

TASKS = ("semseg", "depth", "normals")
CONFIG = """
protocol = "synthetic-scenes"
tasks = ["semseg", "depth", "normals"]
model = dict(
    backbone=dict(type="TimmBackbone", name="{}"),
    decoder=dict(type="ParallelDecoder", width=8),
    head=dict(type="ConvHead"),
)
"""


def resident():
    """Bytes of this process that are in memory now, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def write_files(folder, config):
    """A base and a parent of it for each task; the bytes of the base."""
    from safetensors.torch import save_file

    from mtvision.recipe.building import network_of
    from mtvision.recipe.settings import protocol_of

    torch.manual_seed(0)
    base = {name: item.clone() for name, item in network_of(config, protocol_of(config)).state_dict().items()}
    save_file(base, folder / "base.safetensors")
    for task in TASKS:
        own = {
            name: item for name, item in base.items() if not any(f".{t}." in name for t in TASKS if t != task)
        }
        for item in own.values():
            if item.is_floating_point():
                item.add_(torch.randn_like(item), alpha=1e-3)
        save_file(own, folder / f"{task}.safetensors")
    return (folder / "base.safetensors").stat().st_size


def grown(work):
    """The most that memory grows while a function runs, in bytes, and its seconds."""
    gc.collect()
    before = peak = resident()
    done = threading.Event()

    def watch():
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident())
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    done.set()
    thread.join()
    return peak - before, seconds


def main():
    from mtvision.procedures.merging import MergeRequest, merge_checkpoints
    from mtvision.recipe.config import load_config

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="swin_large_patch4_window12_384")
    parser.add_argument("--method", default="task_arithmetic")
    parser.add_argument("--write", action="store_true", help="write the files, and end")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.py").write_text(CONFIG.format(arguments.backbone))
    config = load_config(folder / "config.py")
    if arguments.write:
        write_files(folder, config)
        return
    size = (folder / "base.safetensors").stat().st_size
    parents = {task: str(folder / f"{task}.safetensors") for task in TASKS}
    out = folder / "merged.pth"
    request = MergeRequest(
        base=str(folder / "base.safetensors"), parents=parents, method=arguments.method, out=out
    )
    import timm  # noqa: F401  its modules are no part of the merge

    from mtvision.models.backbones import timm_backbone  # noqa: F401

    torch.stack([torch.ones(9), torch.ones(9)]).double().sort()
    most, seconds = grown(lambda: merge_checkpoints(config, request))
    found = {"checkpoint": size, "grown": most, "ratio": round(most / size, 3), "seconds": round(seconds, 1)}
    print(json.dumps({"backbone": arguments.backbone, "method": arguments.method, **found}))


if __name__ == "__main__":
    main()
