"""Several metrics of one task as one metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mtvision.core.naming import within
from mtvision.metrics.sums import Metric, Sums


@dataclass(frozen=True, kw_only=True)
class JoinedMetrics(Metric):
    """All metrics of a task, measured and scored together.

    Args:
        parts: {name: metric}; all read the same prediction.
    """

    parts: Mapping[str, Metric]

    @property
    def expensive(self) -> bool:  # type: ignore[override]
        """Whether any of them is."""
        return any(part.expensive for part in self.parts.values())

    @property
    def on_device(self) -> bool:  # type: ignore[override]
        """Whether all of them are: each reads the same maps."""
        return all(part.on_device for part in self.parts.values())

    @property
    def activation(self) -> str | None:
        """Of the first that has one; `build_metric` makes sure that they agree."""
        return next((part.activation for part in self.parts.values() if part.activation is not None), None)

    def check_prediction(self, prediction: Tensor, label: Tensor) -> None:
        """Refuse what any of them refuses."""
        for part in self.parts.values():
            part.check_prediction(prediction, label)

    def measure(self, prediction: Tensor, label: Tensor) -> Sums:
        """The sums of all, as `metric/name`."""
        sums: Sums = {}
        for name, part in self.parts.items():
            with within(f"metric '{name}'"):
                sums.update({f"{name}/{key}": item for key, item in part.measure(prediction, label).items()})
        return sums

    def score(self, sums: Sums) -> dict[str, float]:
        """The scores of all.

        Raises:
            ValueError: two of them give a score of one name.
        """
        scores: dict[str, float] = {}
        for name, part in self.parts.items():
            found = part.score(self._own(name, sums))
            twice = scores.keys() & found.keys()
            if twice:
                raise ValueError(
                    f"metric '{name}': another metric of the task has a score '{min(twice)}' too. "
                    "Rename it in one of them."
                )
            scores.update(found)
        return scores

    def has_label(self, sums: Sums) -> bool:
        """Whether any of them found a labelled pixel."""
        return any(part.has_label(self._own(name, sums)) for name, part in self.parts.items())

    def remarks(self, per_image: Sequence[Sums]) -> list[str]:
        """The sentences of all, each once."""
        found = [
            text
            for name, part in self.parts.items()
            for text in part.remarks([self._own(name, sums) for sums in per_image])
        ]
        return list(dict.fromkeys(found))

    def _own(self, name: str, sums: Sums) -> Sums:
        start = f"{name}/"
        return {key.removeprefix(start): item for key, item in sums.items() if key.startswith(start)}
