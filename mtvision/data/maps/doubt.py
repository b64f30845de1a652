"""What looks wrong in a set of maps and does not decide what its numbers mean."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mtvision.core.task import Task
from mtvision.data.maps.evidence import Evidence
from mtvision.data.maps.options import MapOptions, kind_of
from mtvision.data.maps.rules import SENTINEL, Rule

GAP = 1.5
"""An extreme so much larger than the next value stands apart."""
OFF = 0.25
"""A colour whose vector is so far from length 1 is no direction."""


def doubt_about(task: Task, rule: Rule, evidence: Evidence, options: MapOptions) -> str:
    """A sentence about a likely mark for "no label", or about lengths that are none; empty if all is well.

    Of lengths it is the largest number, if it fills the format or stands apart. Of directions it is one
    colour that is no unit vector. Either must cover more than 0.5 % of the pixels.
    """
    kind = kind_of(task)
    if kind == "length" and evidence.negative == evidence.files:
        return (
            f"no number is above 0 in the {evidence.files} files that were looked at, and some are below it: "
            f"{task.name} counts away from the camera. Store the numbers without their sign."
        )
    if kind == "length" and evidence.pixels:
        share = evidence.at_high / evidence.pixels
        full = evidence.storage.kind in "iu" and evidence.high in (255, 65535, evidence.storage.top)
        apart = evidence.below > 0 and evidence.high >= GAP * evidence.below
        if share > SENTINEL and (full or apart):
            return _sentence(f"{evidence.high:g}", share, _exact(evidence.high, evidence))
        if _normalised(task, evidence, options):
            return (
                "the largest number is exactly 1, as if each map had been divided by its largest distance. "
                "Say scale=1 if these are metres."
            )
    if kind == "direction" and len(evidence.sample):
        scaled = evidence.sample / rule.divisor
        vectors = 2 * scaled - 1 if rule.meaning == "shifted" else scaled
        off = np.abs(np.linalg.norm(vectors, axis=1) - 1) > OFF
        off &= evidence.sample.any(axis=1) if rule.meaning == "signed" else True  # zero is no label anyway
        most = Counter(map(tuple, evidence.sample[off].tolist())).most_common(1)
        if most and most[0][1] > SENTINEL * len(evidence.sample):
            shown, exact = (
                "(" + ", ".join(texts) + ")"
                for texts in zip(*((f"{item:g}", _exact(item, evidence)) for item in most[0][0]), strict=True)
            )
            return _sentence(shown, most[0][1] / len(evidence.sample), exact)
    return ""


def _normalised(task: Task, evidence: Evidence, options: MapOptions) -> bool:
    """Whether real numbers without unit were given for metres."""
    real = evidence.storage.kind == "f" and options.scale is None
    return real and task.unit == "m" and evidence.high == 1 and evidence.low >= 0 and evidence.low < 1


def _exact(value: float, evidence: Evidence) -> str:
    """The shortest text that is this number in the type of the files, so that `invalid=` finds it."""
    kind = {16: np.float16, 32: np.float32}.get(evidence.storage.bits, np.float64)
    text = str(kind(value) if evidence.storage.kind == "f" else np.float64(value))
    return text.removesuffix(".0")


def _sentence(value: str, share: float, option: str) -> str:
    return (
        f"{value} covers {share:.1%} of the pixels and looks like a mark for 'no label'. Say "
        f"invalid=[{option}] if it is one."
    )
