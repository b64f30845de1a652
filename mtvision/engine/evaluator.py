"""Adapter between mmengine's evaluation loop and the suite's own evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmengine.evaluator import Evaluator
from torch import Tensor

from mtvision.core.sample import Batch
from mtvision.evaluation.evaluator import SampleEvaluator


class LoopEvaluator(Evaluator):
    """Hands batches of mmengine's loop to a `SampleEvaluator`.

    Args:
        evaluator: measures and scores.
    """

    def __init__(self, evaluator: SampleEvaluator) -> None:
        super().__init__([])
        self._evaluator = evaluator

    def process(self, data_samples: Sequence[Mapping[str, Tensor]], data_batch: Batch | None = None) -> None:
        """Measure a batch.

        Raises:
            ValueError: no batch is given, so that there are no labels.
        """
        if data_batch is None:
            raise ValueError("evaluation loop: the batch with the labels is missing.")
        self._evaluator.process(data_samples, data_batch)

    def evaluate(self, size: int) -> dict[str, float]:
        """Scores over all processes as flat `task/score` keys."""
        return self._evaluator.evaluate(size)
