"""Instance AP against pycocotools' own evaluation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mtvision.core.instances import encode_instances
from mtvision.metrics.instances import Instance, InstanceAP, instances_from_maps
from mtvision.metrics.sums import total


def scene(seed, number, size=(40, 50)):
    """Rectangles as truths, shifted copies and strays as detections with distinct scores."""
    generator = np.random.default_rng(seed)

    def box(top, left, height, width):
        mask = np.zeros(size, dtype=bool)
        mask[max(top, 0) : top + height, max(left, 0) : left + width] = True
        return mask

    truths, found = [], []
    scores = iter(generator.permutation(256)[: 3 * number] / 256 + 1 / 512)
    for index in range(number):
        place = [int(v) for v in generator.integers([0, 0, 6, 6], [30, 40, 14, 14])]
        category = int(generator.integers(0, 3))
        truths.append(Instance(box(*place), category, ignore=index % 5 == 4))
        for _ in range(int(generator.integers(0, 3))):
            moved = [v + int(d) for v, d in zip(place, generator.integers(-2, 3, 4), strict=True)]
            found.append(Instance(box(*moved), category, float(next(scores))))
    found.append(Instance(box(3, 3, 9, 9), int(generator.integers(0, 3)), float(next(scores))))
    return found, truths


def coco_scores(scenes):
    def encode(mask):
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        return {"size": rle["size"], "counts": rle["counts"].decode()}

    annotations, results = [], []
    for image, (found, truths) in enumerate(scenes, start=1):
        for item in truths:
            annotation = {"image_id": image, "category_id": item.category, "segmentation": encode(item.mask)}
            annotation |= {
                "id": len(annotations) + 1,
                "area": int(item.mask.sum()),
                "iscrowd": int(item.ignore),
            }
            annotations.append(annotation)
        results += [
            {"image_id": image, "category_id": i.category, "segmentation": encode(i.mask), "score": i.score}
            for i in found
        ]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "height": 40, "width": 50} for i in range(1, len(scenes) + 1)],
        "annotations": annotations,
        "categories": [{"id": c, "name": str(c)} for c in range(3)],
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:3]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_pycocotools_with_scores_in_different_bins(seed):
    scenes = [scene(seed, 40)]
    metric = InstanceAP(num_classes=3)
    scores = metric.score(total(metric.count(*item) for item in scenes))
    assert list(scores.values()) == pytest.approx(coco_scores(scenes), abs=1e-9)
    assert 0 < scores["instance_AP"] < scores["instance_AP50"] < 1


def test_many_images_with_scores_that_share_bins():
    scenes = [scene(seed, 12) for seed in range(8)]
    metric = InstanceAP(num_classes=3, bins=2048)
    scores = metric.score(total(metric.count(*item) for item in scenes))
    assert list(scores.values()) == pytest.approx(coco_scores(scenes), abs=0.01)
    shards = [total(metric.count(*item) for item in scenes[rank::3]) for rank in range(3)]
    assert metric.score(total(shards)) == scores


def test_maps_to_instances():
    classes = torch.tensor([[1, 1, 0], [1, 2, 2], [255, 2, 0]])
    ids = torch.tensor([[7, 7, 0], [7, 9, 9], [7, 9, 4]])
    found = instances_from_maps(classes, ids, things=(1, 2), scores=torch.full((3, 3), 0.5))
    assert [(item.category, int(item.mask.sum()), item.score) for item in found] == [(1, 3, 0.5), (2, 3, 0.5)]


def test_nothing_and_errors():
    metric = InstanceAP(num_classes=2)
    empty = metric.score(metric.count([], []))
    assert all(math.isnan(value) for value in empty.values())
    mask = np.ones((3, 3), dtype=bool)
    assert metric.score(metric.count([], [Instance(mask, 0)]))["instance_AP"] == 0
    assert metric.score(metric.count([Instance(mask, 0)], [Instance(mask, 0)]))[
        "instance_AP"
    ] == pytest.approx(1)
    with pytest.raises(ValueError, match="class id 2"):
        metric.count([Instance(mask, 2)], [])
    for size in (2, 4):
        with pytest.raises(ValueError, match="resize"):
            metric.count([Instance(mask, 0)], [Instance(np.ones((size, size), dtype=bool), 0)])
    with pytest.raises(ValueError, match="score"):
        metric.count([Instance(mask, 0, 3.0)], [])


def test_maps_of_ids_give_what_lists_of_instances_give():
    label = torch.zeros(20, 30, dtype=torch.long)
    label[2:10, 2:10], label[2:10, 12:20], label[12:18, 2:12], label[18, 25] = 256, 257, 512, 513
    label[:, 28:] = 255
    prediction = torch.zeros(2, 20, 30)
    for number, (box, category, score) in enumerate(
        [
            (np.s_[2:10, 2:9], 0, 0.9),  # 7/8 of the first
            (np.s_[3:10, 12:20], 1, 0.8),  # wrong class
            (np.s_[12:18, 2:12], 1, 0.7),  # exact
            (np.s_[0:5, 28:30], 0, 0.6),  # in pixels without label: counts nowhere
        ]
    ):
        prediction[0][box], prediction[1][box] = 256 * (category + 1) + number, score
    metric = InstanceAP(num_classes=2, minimum_area=2)
    sums = metric.measure(prediction, label)
    assert sums["true"].tolist() == [2, 1]
    right, wrong = sums["right"].sum(dim=2), sums["wrong"].sum(dim=2)
    assert right[0].tolist() == [1, 1]
    assert wrong[0].tolist() == [0, 1]
    assert right[7].tolist() == [1, 1]  # IoU .85
    assert right[8].tolist() == [0, 1]  # IoU .90
    scores = metric.score(sums)
    # class 0: one of two found; class 1: a wrong one before the right one
    assert scores["instance_AP50"] == pytest.approx((51 / 101 + 0.5) / 2)
    with pytest.raises(ValueError, match=r"\(2, H, W\)"):
        metric.measure(prediction[0], label)


def test_perfect_prediction_scores_1_and_encoding_is_read_back():
    ids = np.arange(12).reshape(3, 4).repeat(4, 0).repeat(4, 1)
    label = torch.from_numpy(encode_instances(ids % 3 - 1, ids)).long()
    metric = InstanceAP(num_classes=2)
    prediction = torch.stack([label.float(), (label > 0).float()])
    assert metric.score(metric.measure(prediction, label))["instance_AP"] == pytest.approx(1)
