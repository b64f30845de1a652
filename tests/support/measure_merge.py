"""Peak memory of one merge of files, in a process of its own: METHOD BASE OUT PARENT..., prints bytes."""

from __future__ import annotations

import gc
import resource
import sys
import threading
import time
from pathlib import Path

import torch

from mtvision.core.registry import MERGERS
from mtvision.merge.files import StateFile
from mtvision.runtime.checkpoint import save_checkpoint


def resident():
    """Bytes of this process that are in memory now, mapped files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main(method, base, out, *paths):
    names = dict.fromkeys(torch.load(base, mmap=True)["state_dict"]) if base.endswith(".pth") else None
    if names is None:
        from safetensors import safe_open

        with safe_open(base, "pt") as file:
            names = dict.fromkeys(file.keys())
    merge = MERGERS[method]
    torch.stack([torch.ones(9), torch.ones(9)]).double().sort()  # what torch itself needs
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
    parents = {str(index): StateFile(path, names) for index, path in enumerate(paths)}
    merged = merge(StateFile(base, names), parents)
    save_checkpoint(Path(out), {"meta": {}, "state_dict": merged})
    done.set()
    thread.join()
    print(peak - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
