"""What looks inside a network in one forward pass: observers, and maps that a student shows for teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mtvision.core.context import Context, current_context
from mtvision.core.naming import UnknownNameError
from mtvision.core.pyramid import Pyramid

OBSERVER = "observer"
"""Key of `Context.extra`."""
REPRESENTATIONS = "mtvision.representations"
"""Key in `Context.extra` of the `Representations` of a forward pass."""


class Observer(Protocol):
    """Called once per forward pass while it is in `Context.extra[OBSERVER]`."""

    def __call__(self, network: Any, pyramid: Pyramid, logits: Mapping[str, Tensor]) -> None:
        """`logits` are those of the heads, before they are resized."""


def observe(context: Context, network: Any, pyramid: Pyramid, logits: Mapping[str, Tensor]) -> None:
    """Call the context's observer with features and logits of a pass, if there is one."""
    observer: Observer | None = context.extra.get(OBSERVER)
    if observer is not None:
        observer(network, pyramid, logits)


@dataclass(frozen=True)
class Shown:
    """What a student shows for one teacher.

    Args:
        maps: (B, C, h, w) of each level, fine to coarse.
        samples: which images of the batch they are of, int64 (B,); None = all.
    """

    maps: tuple[Tensor, ...]
    samples: Tensor | None = None


class Representations:
    """Collects what a student shows for each teacher while it is in `Context.extra[REPRESENTATIONS]`.

    Args:
        teachers: names.
        assigned: (B,) number of the teacher of each image, for students with one teacher per image. By
            default it is drawn when a student asks.

    >>> shown = Representations(["clip", "sam"])
    >>> shown.show("sam", [torch.zeros(1, 8, 2, 3)])
    >>> list(shown.of_teacher)
    ['sam']
    """

    def __init__(self, teachers: Sequence[str], assigned: Tensor | None = None) -> None:
        self.teachers = tuple(teachers)
        self.assigned = assigned
        self.of_teacher: dict[str, Shown] = {}

    def assignment(self, image: Tensor) -> Tensor:
        """(B,) the teacher of each image (B, ...); unless given, a random order of equally many of each.

        Teachers get one image more from the first one on where they do not divide the batch, as in PRISM's
        released code.

        >>> Representations(["clip", "sam"]).assignment(torch.zeros(5, 3, 8, 8)).bincount()
        tensor([3, 2])
        """
        if self.assigned is None:
            self.assigned = torch.randperm(len(image), device=image.device) % len(self.teachers)
        return self.assigned

    def show(self, teacher: str, maps: Sequence[Tensor], samples: Tensor | None = None) -> None:
        """Show the maps (B, C, h, w) of all levels for a teacher.

        Args:
            teacher: its name.
            maps: fine to coarse.
            samples: see `Shown`.

        Raises:
            UnknownNameError: no such teacher is compared with.
        """
        if teacher not in self.teachers:
            raise UnknownNameError("teacher that a network shows maps for", teacher, self.teachers)
        self.of_teacher[teacher] = Shown(tuple(maps), samples)


def wanted_representations() -> Representations | None:
    """Where to show maps for teachers in this pass; None if nothing is compared."""
    wanted: Representations | None = current_context().extra.get(REPRESENTATIONS)
    return wanted
