"""Where a checkpoint is: a file, the folder of a run, `demo`, or `hf:owner/name`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import mtvision

DEMO = "demo"
HUB = "hf:"
SHARED_FILE = "model.safetensors"
"""Name of the weights in a folder that was shared."""
ENDINGS = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar")
"""Endings of checkpoints, behind which `#PART` may stand."""
FORMS = "a file (.pth, .safetensors), the folder of a run, demo, or hf:owner/name"
_REPOSITORY = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Source:
    """A checkpoint that was found.

    Args:
        text: what the user called it.
        file: `FILE` or `FILE#PART` on this machine.
        trusted: whether it may import the plugins that its config names. Files of the hub may not.
    """

    text: str
    file: str
    trusted: bool = True


def names_checkpoint(text: str) -> bool:
    """Whether a word of the command line means a checkpoint and no config.

    >>> [names_checkpoint(item) for item in ("demo", "hf:me/rooms", "a/iter_9.pth", "a.py", "mtan/mtan_x")]
    [True, True, True, False, False]
    """
    path = Path(text)
    return (
        text == DEMO
        or text.startswith(HUB)
        or path.is_dir()
        or text.partition("#")[0].lower().endswith(ENDINGS)
    )


def find_source(text: str | Path) -> Source:
    """The file behind one of the forms of a checkpoint.

    Args:
        text: a file, the folder of a run or of a shared network, `demo`, or `hf:owner/name[@revision]`, which
            is downloaded once. A folder that is called `demo` is `./demo`.

    Raises:
        TypeError: neither a text nor a path.
        FileNotFoundError: there is no such file.
        CheckpointError: a folder without a whole checkpoint.
        ShareError: the repository or its file cannot be had.
    """
    if not isinstance(text, str | Path):
        raise TypeError(f"a checkpoint is {FORMS}; got {text!r}.")
    name = str(text)
    if text == DEMO:
        return Source(name, str(demo_file()))
    if name.startswith(HUB):
        return _of_hub(name)
    path = Path(text)
    if path.is_dir():
        shared = path / SHARED_FILE
        if shared.is_file():
            return Source(name, str(shared))
        from mtvision.runtime.checkpoint import find_checkpoint

        return Source(name, str(find_checkpoint(path)))
    return Source(name, name)


def demo_file() -> Path:
    """The network that comes with the package.

    Raises:
        FileNotFoundError: this installation has none.
    """
    path = Path(mtvision.__file__).parent / DEMO / SHARED_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the demo network is missing; install mtvision again.")
    return path


def _of_hub(name: str) -> Source:
    found = _REPOSITORY.fullmatch(name.removeprefix(HUB))
    if found is None:
        raise ValueError(f"{name}: expected hf:owner/name or hf:owner/name@revision, e.g. hf:ada/rooms@main.")
    from mtvision.share.hub import download

    return Source(name, str(download(found["id"], found["revision"])), trusted=False)
