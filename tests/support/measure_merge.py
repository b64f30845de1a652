"""Peak memory of one merge of files, in a process of its own: METHOD BASE OUT PARENT..., prints bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from measure_merge_command import grown

from mtvision.core.registry import MERGERS
from mtvision.merge.files import StateFile
from mtvision.runtime.checkpoint import save_checkpoint


def main(method, base, out, *paths):
    names = dict.fromkeys(torch.load(base, mmap=True)["state_dict"]) if base.endswith(".pth") else None
    if names is None:
        from safetensors import safe_open

        with safe_open(base, "pt") as file:
            names = dict.fromkeys(file.keys())
    merge = MERGERS[method]
    torch.stack([torch.ones(9), torch.ones(9)]).double().sort()  # what torch itself needs

    def work():
        parents = {str(index): StateFile(path, names) for index, path in enumerate(paths)}
        save_checkpoint(Path(out), {"meta": {}, "state_dict": merge(StateFile(base, names), parents)})

    print(grown(work)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
