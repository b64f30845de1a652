"""Saliency: four kinds of maxF, each by its name, the survey's mIoU, S-measure, E-measure, MAE."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import ClassVar

import torch
from torch import Tensor

from mtvision.core.registry import METRICS
from mtvision.core.task import IGNORE
from mtvision.core.values import Rate
from mtvision.metrics.saliency_structure import LEVELS, structure
from mtvision.metrics.sums import Metric, Ranges, Sums, check_shapes

POOLED_THRESHOLDS = tuple(index / 20 for index in range(1, 20))
"""0.05 ... 0.95: thresholds of maxF, `probability >= t`."""
SURVEY_THRESHOLDS = tuple(0.2 + index * 0.7 / 14 for index in range(15))
"""0.2 ... 0.9: thresholds of the survey family, `probability > t`."""


@METRICS.register_module("saliency")
@dataclass(frozen=True, kw_only=True)
class Saliency(Metric):
    """All saliency scores of the field, from one foreground probability per pixel.

    * `maxF`: precision P and recall R from counts over all pixels of the split at 19 thresholds 0.05 .. 0.95,
      F = (1 + b) P R / (b P + R), b = `beta_squared`, maximum over thresholds (ATRC, TaskDiffusion,
      DiffusionMTL, SAK).
    * `maxF_compat`: the same after a second sigmoid on the probabilities, as in the code behind the numbers
      of InvPT, TaskPrompter, MTMamba, MLoRE. Thresholds to .50 then call everything salient, .55 .. .70 mean
      probabilities of .2007 .4055 .6190 .8473, and higher ones call nothing salient.
    * `survey_miou`: mean over images of the foreground's IoU at 15 thresholds 0.2 .. 0.9, maximum over
      thresholds. An image without salient pixels in label and prediction counts 1. `survey_maxF`: 2PR / (P +
      R) of the mean P and R (MTI-Net, ASTMT, the survey of Vandenhende et al.).
    * `sod_maxF`: maxF of the salient-object community (Achanta et al., CVPR 2009), of precision and recall
      averaged over images. Each map is rounded down to 8 bits, stretched to 0..255 over its labelled pixels
      unless it is constant, and rounded down again. It is salient where it is at least t = 0 .. 255. An
      image's precision is 0 where it has no salient prediction, its recall 0 where its label has no salient
      pixel; both count. F = (1 + b) P R / (b P + R) of the means, 0 where both are, maximum over t. P and R
      are the curves of PySODMetrics (`Fmeasure`, result `pr`), whose own `maxFm` averages F over images.
    * `s_measure`, `e_mean`, `e_max`, `e_adaptive`, `mae`: see `mtvision.metrics.saliency_structure`. A
      perfect map of N pixels has an E-measure of N / (N - 1), as in the published code.

    Args:
        beta_squared: weight of precision in `maxF`, `maxF_compat` and `sod_maxF`.
        structure: also compute the last five, which take most of the time.
    """

    ranges: ClassVar[Ranges] = {
        "maxF": (0.0, 1.0), "maxF_compat": (0.0, 1.0), "survey_miou": (0.0, 1.0), "survey_maxF": (0.0, 1.0),
        "sod_maxF": (0.0, 1.0), "s_measure": (0.0, 1.0), "e_mean": (0.0, 2.0), "e_max": (0.0, 2.0),
        "e_adaptive": (0.0, 2.0), "mae": (0.0, 1.0),
    }  # fmt: skip

    beta_squared: Rate = 0.3
    structure: bool = True

    def measure(self, prediction: Tensor, label: Tensor) -> Sums:
        """Sums of one image.

        Args:
            prediction: probability of the foreground, (1, H, W), 0..1.
            label: 0 background, 1 salient, 255 = no label, integer (H, W).

        Raises:
            ValueError: the shapes differ, values are not probabilities, or the label holds other ids.
        """
        if prediction.ndim != 3 or prediction.shape[0] != 1:
            raise ValueError(f"saliency: prediction has shape {tuple(prediction.shape)}, expected (1, H, W).")
        check_shapes("saliency", prediction[0], label)
        valid = label != IGNORE
        probability, truth = prediction[0][valid], label[valid]
        _check_values(probability, truth)
        salient = truth == 1
        single = probability.float()
        correct, predicted = _counts(single, salient, POOLED_THRESHOLDS, strict=False)
        compat_correct, compat_predicted = _counts(single.sigmoid(), salient, POOLED_THRESHOLDS, strict=False)
        images = torch.tensor(int(valid.any()))
        sums = {
            "correct": correct,
            "predicted": predicted,
            "compat_correct": compat_correct,
            "compat_predicted": compat_predicted,
            "salient": salient.sum(),
            "images": images,
        }
        sums |= self._survey_sums(single, salient, bool(images))
        sums |= _sod_sums(single, salient)
        if self.structure:
            sums |= self._structure_sums(prediction[0], label, valid, bool(images))
        return {name: value.cpu() for name, value in sums.items()}

    def score(self, sums: Sums) -> dict[str, float]:
        """The scores named in the class's description; NaN when no image had a label."""
        images = int(sums["images"])
        names = ["maxF", "maxF_compat", "survey_miou", "survey_maxF", "sod_maxF"]
        names += ["s_measure", "e_mean", "e_max", "e_adaptive", "mae"] if self.structure else []
        if images == 0:
            return dict.fromkeys(names, nan)
        precision, recall = sums["survey_precision"] / images, sums["survey_recall"] / images
        scores = {
            "maxF": self._pooled_max_f(sums["correct"], sums["predicted"], sums["salient"]),
            "maxF_compat": self._pooled_max_f(
                sums["compat_correct"], sums["compat_predicted"], sums["salient"]
            ),
            "survey_miou": float((sums["survey_jaccard"] / images).max()),
            "survey_maxF": float((2 * precision * recall / (precision + recall)).nan_to_num(nan=0).max()),
            "sod_maxF": self._max_f(sums["sod_precision"] / images, sums["sod_recall"] / images),
        }
        if self.structure:
            curve = sums["e_curve"] / images
            scores |= {"e_mean": float(curve.mean()), "e_max": float(curve.max())}
            scores |= {name: float(sums[name]) / images for name in ("s_measure", "e_adaptive", "mae")}
        return {name: scores[name] for name in names}

    def has_label(self, sums: Sums) -> bool:
        """Whether any image had a label."""
        return bool(sums["images"] > 0)

    def _pooled_max_f(self, correct: Tensor, predicted: Tensor, salient: Tensor) -> float:
        return self._max_f(correct.double() / predicted.double(), correct.double() / salient.double())

    def _max_f(self, precision: Tensor, recall: Tensor) -> float:
        f = (1 + self.beta_squared) * precision * recall / (self.beta_squared * precision + recall)
        return float(f.nan_to_num(nan=0).max())

    def _survey_sums(self, probability: Tensor, salient: Tensor, labelled: bool) -> Sums:
        if not labelled:
            return {f"survey_{name}": torch.zeros(15).double() for name in ("precision", "recall", "jaccard")}
        correct, predicted = (
            x.double() for x in _counts(probability, salient, SURVEY_THRESHOLDS, strict=True)
        )
        union = predicted + salient.sum() - correct
        return {
            "survey_precision": correct / predicted.clamp(min=1),
            "survey_recall": correct / salient.sum().clamp(min=1).double(),
            "survey_jaccard": torch.where(union > 0, correct / union.clamp(min=1), 1.0),
        }

    def _structure_sums(self, prediction: Tensor, label: Tensor, valid: Tensor, labelled: bool) -> Sums:
        names = ("s_measure", "e_adaptive", "mae")
        if not labelled:
            return {name: torch.zeros(()).double() for name in names} | {
                "e_curve": torch.zeros(LEVELS).double()
            }
        scores = structure(
            prediction.detach().double().cpu().numpy(), (label == 1).cpu().numpy(), valid.cpu().numpy()
        )
        sums = {name: torch.tensor(getattr(scores, name), dtype=torch.float64) for name in names}
        return sums | {"e_curve": torch.from_numpy(scores.e_curve)}


def _counts(
    values: Tensor, salient: Tensor, thresholds: tuple[float, ...], *, strict: bool
) -> tuple[Tensor, Tensor]:
    """Per threshold, how many salient pixels and how many at all are positive (`>=`, or `>` if strict)."""
    edges = torch.tensor(thresholds, dtype=torch.float32, device=values.device)
    passed = torch.bucketize(values, edges, right=not strict)
    counts = []
    for chosen in (passed[salient], passed):
        histogram = torch.bincount(chosen, minlength=len(thresholds) + 1)
        counts.append(histogram.flip(0).cumsum(0).flip(0)[1:])
    return counts[0], counts[1]


def _sod_sums(probability: Tensor, salient: Tensor) -> Sums:
    """Precision and recall of one image at the 8-bit thresholds 0 .. 255; all 0 without labelled pixels."""
    if probability.numel() == 0:
        return {f"sod_{name}": torch.zeros(LEVELS).double() for name in ("precision", "recall")}
    top = LEVELS - 1
    values = (probability * top).floor().double() / top
    low, high = values.min(), values.max()
    if high > low:
        values = (values - low) / (high - low)
    levels = (values * top).long()
    found, correct = (
        torch.bincount(chosen, minlength=LEVELS).flip(0).cumsum(0).flip(0).double()
        for chosen in (levels, levels[salient])
    )
    return {
        "sod_precision": correct / found.clamp(min=1),
        "sod_recall": correct / salient.sum().clamp(min=1),
    }


def _check_values(probability: Tensor, truth: Tensor) -> None:
    if truth.is_floating_point() or bool(((truth != 0) & (truth != 1)).any()):
        found = truth[(truth != 0) & (truth != 1)][:1].tolist()
        raise ValueError(
            f"saliency: labels must be integers 0, 1 or {IGNORE}, got {truth.dtype} with {found}."
        )
    if not bool(((probability >= 0) & (probability <= 1)).all()):
        raise ValueError(
            "saliency: predictions must be probabilities in 0..1, got values outside or NaN; "
            "apply mtvision.core.prediction.to_prediction to logits first."
        )
