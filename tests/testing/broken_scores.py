"""Balancers, losses and metrics that each break one property."""

from __future__ import annotations

from math import nan

import torch
from torch import nn

from mtvision.balance import Balancer
from mtvision.losses.loss import Loss
from mtvision.metrics import Metric


class Scalar(Balancer):
    """Sum of the losses, and room for one mistake."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls = 0

    def combine(self, losses):
        self.check_tasks(list(losses))
        self.calls += 1
        return torch.stack([self.term(name, loss) for name, loss in losses.items()]).sum()

    def term(self, name, loss):
        return loss


class Jacobian(Balancer):
    needs = "jacobian"

    def aggregate(self, jacobian, tasks):
        self.check_tasks(tasks)
        return jacobian.sum(dim=0)


class Ascends(Scalar):
    def term(self, name, loss):
        return -loss


class Saturates(Scalar):
    def term(self, name, loss):
        return torch.tanh(loss / 4)


class WeighsByPlace(Scalar):
    def term(self, name, loss):
        return loss * (1 + self.tasks.index(name))


class LogOfZero(Scalar):
    def term(self, name, loss):
        return loss.log()


class LessTheMean(Jacobian):
    def aggregate(self, jacobian, tasks):
        return (jacobian - jacobian.mean(dim=0)).sum(dim=0)


class CountsAbsentTasks(Scalar):
    def term(self, name, loss):
        return loss / len(self.tasks)


class TakesAnyName(Scalar):
    def check_tasks(self, names):
        del names


class HidesNan(Jacobian):
    def aggregate(self, jacobian, tasks):
        return jacobian.nan_to_num(posinf=0.0).sum(dim=0)


class InPlace(Jacobian):
    def aggregate(self, jacobian, tasks):
        return jacobian.mul_(2).sum(dim=0)


class WrongWeights(Scalar):
    def weights(self):
        return {name: torch.tensor(2.0) for name in self.tasks}


class Random(Jacobian):
    def aggregate(self, jacobian, tasks):
        return torch.rand(len(tasks)).to(jacobian) @ jacobian


class ForgetsItsCalls(Scalar):
    def term(self, name, loss):
        return loss * (1 + self.calls * self.tasks.index(name))


class Squares(Scalar):
    def term(self, name, loss):
        return loss.square()


class IdleParameter(Scalar):
    def __init__(self, **options):
        super().__init__(**options)
        self.idle = nn.Parameter(torch.ones(2))


class ClosureBalancer(Scalar):
    def __init__(self, **options):
        super().__init__(**options)
        self.closure = lambda: 0


class Sleeps(Scalar):
    def term(self, name, loss):
        return 0 * loss


class ClampsWhatFlowsBack(Scalar):
    """Gradients of losses are 1 without a loss scale."""

    def term(self, name, loss):
        same = loss * 1
        same.register_hook(lambda gradient: gradient.clamp(max=1))
        return same


class RefusesInRiddles(Scalar):
    def combine(self, losses):
        if len(losses) < len(self.tasks):
            raise ValueError("something is not there")
        return super().combine(losses)


BALANCERS = {
    "equal_losses_agree": Ascends,
    "common_scale_keeps_the_direction": Saturates,
    "order_of_tasks_is_irrelevant": WeighsByPlace,
    "zero_gradients_give_zero": LogOfZero,
    "one_task_is_the_plain_gradient": LessTheMean,
    "absent_tasks_count_for_nothing": CountsAbsentTasks,
    "unknown_and_missing_tasks_are_refused": TakesAnyName,
    "non_finite_is_not_hidden": HidesNan,
    "inputs_are_left_alone": InPlace,
    "weights_are_those_used": WrongWeights,
    "every_process_gets_the_same": Random,
    "state_round_trip": ForgetsItsCalls,
    "halves_average_to_the_whole": Squares,
    "synchronised_norms_are_those_of_one_process": Squares,
    "resumed_equals_uninterrupted": ForgetsItsCalls,
    "trains_in_bfloat16": Sleeps,
    "loss_scale_changes_nothing": ClampsWhatFlowsBack,
    "partial_labels_train_or_are_refused": RefusesInRiddles,
    "own_parameters_learn": IdleParameter,
    "copies_are_equal": ClosureBalancer,
}


class Absolute(Loss):
    """Mean absolute error, in steps that can be changed."""

    def compute(self, logits, label, counts):
        valid = ~label.isnan()
        error = self.error(torch.where(valid, logits, 0), torch.where(valid, label, 0), valid)
        return error.sum() / self.count(valid, counts)

    def error(self, logits, label, valid):
        return (logits - label).abs()

    def count(self, valid, counts):
        return counts[0].clamp(min=1)


class PerSample(Absolute):
    def compute(self, logits, label, counts):
        return super().compute(logits, label, counts).expand(len(logits))


class DividesByZero(Absolute):
    def count(self, valid, counts):
        return valid.sum()


class MasksAfterwards(Absolute):
    def compute(self, logits, label, counts):
        valid = ~label.isnan()
        return ((logits - label.nan_to_num()).abs() * valid).sum() / self.count(valid, counts)


class HalfAGradient(Absolute):
    def error(self, logits, label, valid):
        return (logits - label).abs() * (logits - label).abs().detach()


class Total(Absolute):
    def count(self, valid, counts):
        return 1


class CountsEveryPixel(Absolute):
    def count(self, valid, counts):
        return valid.numel()


class FirstSampleCountsMost(Absolute):
    def error(self, logits, label, valid):
        return (logits - label).abs() / torch.arange(1, len(logits) + 1).view(-1, 1, 1, 1)


class GrowsWithTheBatch(Absolute):
    def error(self, logits, label, valid):
        return (logits - label).abs() * len(logits)


class StaysHalf(Absolute):
    def __call__(self, logits, label, counts=None):
        return self.compute(logits, label.to(logits.dtype), self.counts(label)).float()


class OffByOne(Absolute):
    def error(self, logits, label, valid):
        return torch.where(valid, (logits - label - 1).abs(), 0)


class ChangesLogits(Absolute):
    def compute(self, logits, label, counts):
        with torch.no_grad():
            logits.data.add_(1)
        return super().compute(logits, label, counts)


class Broadcasts(Absolute):
    def __call__(self, logits, label, counts=None):
        return self.compute(logits[..., :1], label, self.counts(label))


class MeanOfWhatIsAtHand(Absolute):
    def count(self, valid, counts):
        return valid.sum().clamp(min=1)


class ClosureLoss(Absolute):
    def __init__(self):
        self.closure = lambda: 0


LOSSES = {
    "gives_a_real_scalar": PerSample,
    "nothing_labelled_is_zero": DividesByZero,
    "unlabelled_pixels_do_not_matter": MasksAfterwards,
    "gradient_is_right": HalfAGradient,
    "batch_of_one": Total,
    "unlabelled_samples_do_not_matter": CountsEveryPixel,
    "order_of_samples_is_irrelevant": FirstSampleCountsMost,
    "halves_average_to_the_whole": GrowsWithTheBatch,
    "shares_add_up_to_the_whole": MeanOfWhatIsAtHand,
    "half_precision_is_computed_in_float32": StaysHalf,
    "perfect_prediction_is_minimal": OffByOne,
    "inputs_are_left_alone": ChangesLogits,
    "other_shapes_are_refused": Broadcasts,
    "copies_are_equal": ClosureLoss,
}


class Rmse(Metric):
    """Root of the mean squared error of depth, in steps that can be changed."""

    calls = 0

    def measure(self, prediction, label):
        if prediction.shape != label.shape:
            raise ValueError("shapes differ")
        valid = ~label.isnan()
        error = self.error(prediction, torch.where(valid, label, 0))
        return {"error": torch.where(valid, error.double(), 0).sum().cpu(), "count": valid.sum().cpu()}

    def error(self, prediction, label):
        return (prediction.double() - label).square()

    def score(self, sums):
        count = int(sums["count"])
        return {"rmse": float(sums["error"] / count) ** 0.5 if count else nan}


class SinglePrecision(Rmse):
    def measure(self, prediction, label):
        return {name: item.float() for name, item in super().measure(prediction, label).items()}


class OtherName(Rmse):
    def score(self, sums):
        return {"error": super().score(sums)["rmse"]}


class CountsItsCalls(Rmse):
    def score(self, sums):
        self.calls += 1
        return {"rmse": super().score(sums)["rmse"] + self.calls}


class MissingIsZero(Rmse):
    def measure(self, prediction, label):
        return super().measure(prediction, label.nan_to_num())


class NoLabelIsPerfect(Rmse):
    def score(self, sums):
        value = super().score(sums)["rmse"]
        return {"rmse": 0.0 if value != value else value}


class NeverZero(Rmse):
    def error(self, prediction, label):
        return (prediction.double() - label).square() + 1


class AlwaysOne(Rmse):
    def score(self, sums):
        return {"rmse": 1.0}


class Negative(Rmse):
    def score(self, sums):
        return {"rmse": -super().score(sums)["rmse"]}


class RoundsHalf(Rmse):
    def error(self, prediction, label):
        return ((prediction * 1e5).double() / 1e5 - label).square()


class ChangesPrediction(Rmse):
    def measure(self, prediction, label):
        sums = super().measure(prediction, label)
        prediction.add_(1)
        return sums


class BroadcastsMetric(Rmse):
    def measure(self, prediction, label):
        return super().measure(prediction.reshape(-1)[0].expand(label.shape), label)


class TakesAnything(Rmse):
    def check_prediction(self, prediction, label):
        del prediction, label


class ClosureMetric(Rmse):
    def __init__(self):
        self.closure = lambda: 0


METRICS = {
    "sums_keep_the_contract": SinglePrecision,
    "headline_is_scored": OtherName,
    "sharded_equals_whole": CountsItsCalls,
    "order_is_irrelevant": CountsItsCalls,
    "unlabelled_pixels_do_not_matter": MissingIsZero,
    "no_label_is_absent": NoLabelIsPerfect,
    "perfect_is_best": NeverZero,
    "constant_is_worse": AlwaysOne,
    "scores_lie_in_their_ranges": Negative,
    "half_precision_is_close": RoundsHalf,
    "inputs_are_left_alone": ChangesPrediction,
    "other_shapes_are_refused": BroadcastsMetric,
    "sick_predictions_are_refused": TakesAnything,
    "copies_are_equal": ClosureMetric,
}
