"""Adapter between mmengine's evaluation loop and the suite's own evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmengine.evaluator import Evaluator
from torch import Tensor

from mtvision.core.sample import Batch
from mtvision.evaluation.evaluator import SampleEvaluator
from mtvision.evaluation.overlap import Behind


class LoopEvaluator(Evaluator):
    """Hands batches of mmengine's loop to a `SampleEvaluator`, which measures while the next is computed.

    Args:
        evaluator: measures and scores.
    """

    def __init__(self, evaluator: SampleEvaluator) -> None:
        super().__init__([])
        self._evaluator = evaluator
        self._measuring = Behind()

    def process(self, data_samples: Sequence[Mapping[str, Tensor]], data_batch: Batch | None = None) -> None:
        """Begin to measure a batch; what the one before raised is raised here.

        Raises:
            ValueError: no batch is given, so that there are no labels.
        """
        if data_batch is None:
            raise ValueError("evaluation loop: the batch with the labels is missing.")
        self._measuring(self._evaluator.process, data_samples, data_batch)

    def evaluate(self, size: int) -> dict[str, float]:
        """Scores over all processes as flat `task/score` keys."""
        self._measuring.close()
        return self._evaluator.evaluate(size)
