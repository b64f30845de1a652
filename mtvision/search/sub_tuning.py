"""SubTuning: which blocks each task fine-tunes on a backbone that is frozen otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch

from mtvision.core.registry import SEARCHERS
from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.core.values import Factor, Positive, Rate
from mtvision.models.adapters.weight_deltas.greedy import Choice, greedy_subset
from mtvision.search.problem import Searcher, SearchProblem


@SEARCHERS.register_module()
class SubTuningSearcher(Searcher):
    """Greedy choice of the blocks that a task has for itself (SubTuning, Kaplun et al., 2023).

    For every task, subsets of the backbone's blocks are trained for a few steps, with all that the task reads
    behind the backbone. Each starts from the same weights and sees the same batches. The block that raises
    the score on the held-out slice most is added, until none does. `Subset` reads the result.

    Args:
        iterations: training steps per subset.
        lr: of AdamW, which trains them.
        weight_decay: of AdamW.
        smallest_gain: a block must raise the score by more than this share of the score without any.
        most: blocks per task at most; None = all.
    """

    def __init__(
        self,
        *,
        iterations: Positive = 100,
        lr: Rate = 1e-3,
        weight_decay: Factor = 1e-4,
        smallest_gain: Factor = 0.0,
        most: Positive | None = None,
    ) -> None:
        self.iterations, self.lr, self.weight_decay = iterations, lr, weight_decay
        self.smallest_gain, self.most = smallest_gain, most

    def search(self, problem: SearchProblem) -> dict[str, Any]:
        """`blocks` {task: names}, `scores` {task: before and after each choice}, `tried` {task: count}.

        Raises:
            ValueError: the caller gives no training images, or a task has no label in the batches.
        """
        if problem.training is None or problem.batch_losses is None:
            raise ValueError("SubTuningSearcher trains subsets: give training images (section 'train_data').")
        batches = list(islice(problem.training(), self.iterations))
        start = {name: item.detach().clone() for name, item in problem.network.state_dict().items()}
        frozen = {name for name, item in problem.network.named_parameters() if not item.requires_grad}
        choices: dict[str, Choice] = {}
        try:
            for task in problem.tasks:
                choices[task.name] = self._choose(problem, task, batches, start)
        finally:
            problem.network.load_state_dict(start)
            for name, item in problem.network.named_parameters():
                item.requires_grad_(name not in frozen)
        return {
            "kind": "subset",
            "blocks": {name: list(choice.names) for name, choice in choices.items()},
            "scores": {name: list(choice.scores) for name, choice in choices.items()},
            "tried": {name: choice.tried for name, choice in choices.items()},
        }

    def _choose(
        self, problem: SearchProblem, task: Task, batches: Sequence[Batch], start: dict[str, torch.Tensor]
    ) -> Choice:
        sign = 1.0 if task.higher_is_better else -1.0

        def score(blocks: tuple[str, ...]) -> float:
            problem.network.load_state_dict(start)
            self._train(problem, task, batches, blocks)
            return sign * problem.evaluate(None)[task.name]

        first = score(())
        found = greedy_subset(
            problem.network.backbone.block_names(),
            lambda blocks: score(blocks) if blocks else first,
            smallest_gain=self.smallest_gain * abs(first),
            most=self.most,
        )
        return Choice(found.names, tuple(sign * item for item in found.scores), found.tried)

    def _train(
        self, problem: SearchProblem, task: Task, batches: Sequence[Batch], blocks: tuple[str, ...]
    ) -> None:
        """Train blocks and what the task reads behind the backbone; norms keep their statistics."""
        within = tuple(f"backbone.{name}." for name in blocks)
        for name, item in problem.network.named_parameters():
            item.requires_grad_(not name.startswith("backbone.") or name.startswith(within))
        trained = [item for item in problem.network.parameters() if item.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=self.weight_decay)
        assert problem.batch_losses is not None
        steps = 0
        for batch in batches:
            loss = problem.batch_losses(batch).get(task.name)
            if loss is None:
                continue
            steps += 1
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if not steps:
            raise ValueError(
                f"SubTuningSearcher: none of {len(batches)} batches has a label of '{task.name}'. Give more "
                "iterations."
            )
