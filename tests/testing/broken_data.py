"""Data sets and steps that each break one property."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import nn

from mtvision.core.sample import Meta, RawSample
from mtvision.data import DenseDataset
from mtvision.data.samplers import TrainingBatchSampler
from mtvision.protocols import own_protocol
from mtvision.steps import PlainStep
from mtvision.steps.step import Step, add_to_grad

PROTOCOL = own_protocol("broken", {"semseg": {"class_names": ["a", "b"]}, "depth": {}})


class Tiny(DenseDataset):
    """Four images of noise with a class map, the last without depth."""

    def __init__(self):
        super().__init__(ids=list("wxyz"), protocol=PROTOCOL, split="train", check_split=False)

    def read(self, index):
        rng = np.random.default_rng(index)
        labels = {"semseg": rng.integers(0, 2, (8, 12)).astype(np.uint8)}
        if index < 3:
            labels["depth"] = rng.uniform(1, 5, (8, 12, 1)).astype(np.float32)
        image = rng.integers(0, 256, (8, 12, 3)).astype(np.uint8)
        meta = Meta(id=self.ids[index], size=(8, 12), original_size=(8, 12))
        return RawSample(image=image, labels=labels, tasks=self.tasks, meta=meta)


class OneNameForAll(Tiny):
    def read(self, index):
        raw = super().read(index)
        raw.meta.id = "image"
        return raw


class InfiniteDepth(Tiny):
    def read(self, index):
        raw = super().read(index)
        for label in (raw.labels[name] for name in raw.labels if name == "depth"):
            label[0] = np.inf
        return raw


class GlobalRandomness(Tiny):
    def __getitem__(self, key):
        sample = super().__getitem__(key)
        sample.image += torch.rand(())
        return sample


class SharesMemory(Tiny):
    def __getitem__(self, key):
        index = getattr(key, "index", key)
        self.__dict__.setdefault("kept", {})
        if index not in self.kept:
            self.kept[index] = super().__getitem__(key)
        return self.kept[index]


class KnowsItsProcess(Tiny):
    def __getitem__(self, key):
        sample = super().__getitem__(key)
        sample.image += os.getpid()
        return sample


class Sampler(TrainingBatchSampler):
    """Another sampler with one mistake."""

    def __init__(self, inner):
        self.inner = inner

    def batch(self, position):
        return self.inner.batch(position)


class HalfTheImages(Sampler):
    def batch(self, position):
        return self.inner.batch(position // 2)


class BeginsAnew(Sampler):
    def __iter__(self):
        return iter(self.inner)


class VisitsHalf(Tiny):
    def batch_sampler(self, *args, **options):
        return HalfTheImages(super().batch_sampler(*args, **options))


class NeverResumes(Tiny):
    def batch_sampler(self, *args, **options):
        return BeginsAnew(super().batch_sampler(*args, **options))


class ForeignTask(Tiny):
    def __getitem__(self, key):
        sample = super().__getitem__(key)
        sample.labels["other"] = sample.labels["semseg"]
        return sample


class UnstableParameters(Tiny):
    def parameters(self):
        return {"number": float(np.random.default_rng().random())}


class ClosureDataset(Tiny):
    def __init__(self):
        super().__init__()
        self.closure = lambda: 0


DATASETS = {
    "length_and_ids": OneNameForAll,
    "samples_keep_the_contract": InfiniteDepth,
    "samples_follow_seed_epoch_and_index": GlobalRandomness,
    "order_of_reading_is_irrelevant": SharesMemory,
    "workers_change_nothing": KnowsItsProcess,
    "training_covers_every_image": VisitsHalf,
    "training_starts_anywhere": NeverResumes,
    "partial_labels_are_absent_keys": ForeignTask,
    "manifest_is_stable": UnstableParameters,
    "pickles": ClosureDataset,
}


class Twice(PlainStep):
    def __call__(self, problem, batch):
        super().__call__(problem, batch)
        return super().__call__(problem, batch)


class MeanOfRows(PlainStep):
    """Divides what a Jacobian gives by the number of tasks."""

    def __call__(self, problem, batch):
        logs = super().__call__(problem, batch)
        if problem.balancer.needs == "jacobian":
            for _, item in problem.parameters:
                if item.grad is not None:
                    item.grad /= 3
        return logs


class NeverAsks(PlainStep):
    """Takes the sum of the losses whatever the balancer says."""

    def __call__(self, problem, batch):
        report = problem.forward(batch)
        torch.stack(list(report.losses.values())).sum().backward()
        return {}


class Normalises(PlainStep):
    def __call__(self, problem, batch):
        earlier = [item.grad for _, item in problem.parameters]
        for _, item in problem.parameters:
            item.grad = None
        logs = super().__call__(problem, batch)
        for (_, item), before in zip(problem.parameters, earlier, strict=True):
            fresh, item.grad = item.grad, before
            if fresh is not None:
                add_to_grad(item, fresh / fresh.norm())
        return logs


class ClaimsToAverage(PlainStep):
    def averages_gradients(self, balancer):
        return True


class Decays(PlainStep):
    def __call__(self, problem, batch):
        logs = super().__call__(problem, batch)
        for _, item in problem.parameters:
            if item.requires_grad:
                add_to_grad(item, 0.1 * item.detach())
        return logs


class TakesEmptyBatches(PlainStep):
    def __call__(self, problem, batch):
        return super().__call__(problem, batch) if batch.labels else {"total": torch.zeros(())}


class Replaces(PlainStep):
    def __call__(self, problem, batch):
        for _, item in problem.parameters:
            item.grad = None
        return super().__call__(problem, batch)


class IgnoresTheScale(PlainStep):
    def __call__(self, problem, batch):
        problem.backward = torch.autograd.backward
        return super().__call__(problem, batch)


class KeepsGraphs(PlainStep):
    def __call__(self, problem, batch):
        logs = super().__call__(problem, batch)
        weight = problem.parameters[0][1]
        return {**logs, "total": logs["total"] + weight.sum()}


class ChangesTheBatch(PlainStep):
    def __call__(self, problem, batch):
        logs = super().__call__(problem, batch)
        batch.image.add_(1)
        return logs


class ForgetsItsCalls(nn.Module, Step):
    def __init__(self):
        super().__init__()
        self.inner, self.calls = PlainStep(), 0

    def __call__(self, problem, batch):
        self.calls += 1
        logs = self.inner(problem, batch)
        for _, item in problem.parameters:
            if item.grad is not None:
                item.grad *= self.calls
        return logs


class ClosureStep(PlainStep):
    def __init__(self):
        super().__init__()
        self.closure = lambda: 0


STEPS = {
    "gradients_equal_the_obvious": Twice,
    "both_kinds_of_balancer_agree": MeanOfRows,
    "parameters_of_one_task_are_not_balanced": NeverAsks,
    "micro_batches_equal_the_batch": Normalises,
    "processes_equal_one": ClaimsToAverage,
    "absent_tasks_are_left_out": Decays,
    "empty_batch_is_refused": TakesEmptyBatches,
    "gradients_add_up": Replaces,
    "loss_scale_is_invisible": IgnoresTheScale,
    "logs_are_detached_scalars": KeepsGraphs,
    "batch_and_weights_are_left_alone": ChangesTheBatch,
    "state_round_trip": ForgetsItsCalls,
    "copies_are_equal": ClosureStep,
}
