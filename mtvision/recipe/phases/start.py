"""Starts of a phase from earlier ones: the weights of one of them, or a merge of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtvision.core.naming import ReportedError
from mtvision.core.registry import MERGERS


class PhaseError(ReportedError, ValueError):
    """The phases of a config contradict one another, or do not fit a checkpoint."""


def check_start(start: Mapping[str, Any], earlier: Sequence[str]) -> None:
    """Refuse a start that names no earlier phase, or no merge that can be made.

    Args:
        start: `{phase: NAME}` or `{merge: METHOD, parents: {TASK: NAME}, base: NAME, options: {...}}`.
        earlier: names of the phases before.

    Raises:
        PhaseError: a key or a name is wrong.
        UnknownNameError, TypeError, ValueError: the method or an option is wrong.
    """
    names = [start["phase"]] if set(start) == {"phase"} else None
    if names is None:
        needed, known = {"merge", "parents", "base"}, {"merge", "parents", "base", "options"}
        if not needed <= set(start) <= known or not isinstance(start["parents"], Mapping):
            raise PhaseError(
                f"start has the keys {', '.join(map(str, start))}. Expected dict(phase=NAME), or dict("
                "merge=METHOD, base=NAME, parents=dict(TASK=NAME), options=dict(...))."
            )
        from mtvision.merge.table import learns  # imports torch, which a config without it need not

        if learns(str(start["merge"])):
            raise PhaseError(f"{start['merge']} learns from held-out images. Use `mtvision merge` for it.")
        MERGERS.check_config({"type": start["merge"], **start.get("options", {})})
        names = [start["base"], *start["parents"].values()]
    for name in names:
        if name not in earlier:
            known_names = f"Those before are {', '.join(earlier)}." if earlier else "No phase is before it."
            raise PhaseError(f"start names the phase '{name}'. {known_names}")
