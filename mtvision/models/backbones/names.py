"""Names of timm's models, without importing timm."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from mtvision.core.naming import UnknownNameError
from mtvision.core.values import CheckedBy

TimmName = Annotated[str, CheckedBy("mtvision.models.backbones.names:check_timm_name")]
"""A name of timm, with or without a weight tag: `resnet18`, `swin_tiny_patch4_window7_224.ms_in1k`."""

InputChannels = Annotated[int, CheckedBy("mtvision.models.backbones.names:check_in_chans")]
"""Channels of the images a backbone reads: 3."""

_MODEL = re.compile(r"^@register_model\ndef (\w+)\(", re.MULTILINE)


def check_timm_name(name: str) -> None:
    """Refuse a name that is in none of timm's source files, or that timm itself does not know.

    timm is asked only if it is imported already, as models may have been added then.

    Raises:
        UnknownNameError: timm has no such model.
    """
    architecture = name.partition(".")[0]
    if "timm" in sys.modules:
        import timm

        if not timm.is_model(architecture):
            raise unknown_model(name, timm.list_models())
    elif not _is_defined(architecture):
        raise unknown_model(name, _MODEL.findall(_sources()))


def check_in_chans(channels: int) -> None:
    """Refuse backbones for other images than the data sets give.

    Raises:
        ValueError: `channels` is not 3.
    """
    if channels != 3:
        raise ValueError(
            f"in_chans={channels}: images are RGB, (B, 3, H, W), in data sets, transforms and cost "
            "measures. Leave in_chans out."
        )


def unknown_model(name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that timm does not have, with the nearest of the known ones."""
    near = get_close_matches(name.partition(".")[0], list(known), n=8, cutoff=0.5)
    error = UnknownNameError("timm model", name, near)
    text = str(error).replace("Known: ", "Nearest names: ")
    error.args = (f"{text}\n`timm.list_models('*part*')` lists all.",)
    return error


@cache
def _is_defined(architecture: str) -> bool:
    text = _sources()
    return f"def {architecture}(" in text or f"'{architecture}':" in text  # the latter: an old name


@cache
def _sources() -> str:
    """The text of the files in `timm/models`."""
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("timm is not installed; `pip install timm`.")
    files = sorted((Path(spec.origin).parent / "models").glob("*.py"))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)
