"""The published pipelines once more, as plain as possible: one dict of float arrays, sentinels, loops over
keys.

Written from the protocol's text alone; sentinels are 255 as in the papers, `invalid` maps say where.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch

KINDS = ("image", "semseg", "depth", "normals", "edge", "saliency", "human_parts")
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def with_channel(array, like):
    return array[:, :, None] if array.ndim == 2 and like.ndim == 3 else array


def random_scaling(sample, rng):
    s = rng.uniform(0.5, 2.0)
    if s == 1:
        return sample
    out = {}
    for key, value in sample.items():
        h, w = value.shape[:2]
        new = (int(w * s), int(h * s))
        mode = cv2.INTER_LINEAR if key == "image" else cv2.INTER_NEAREST
        resized = with_channel(cv2.resize(value, new, interpolation=mode), value)
        out[key] = (resized / s).astype(np.float32) if key == "depth" else resized
    return out


def random_crop(sample, rng, size):
    h, w = sample["image"].shape[:2]
    if (h, w) == size:
        return sample

    def location():
        y = rng.integers(0, max(h - size[0], 0) + 1)
        x = rng.integers(0, max(w - size[1], 0) + 1)
        return y, x

    y, x = location()
    if "semseg" in sample:
        for _ in range(10):
            values = sample["semseg"][y : y + size[0], x : x + size[1]]
            names, counts = np.unique(values, return_counts=True)
            counts = counts[names != 255]
            if len(counts) > 1 and np.max(counts) / np.sum(counts) < 0.75:
                break
            y, x = location()
    return {key: value[y : y + size[0], x : x + size[1]] for key, value in sample.items()}


def random_flip(sample, rng):
    if rng.random() >= 0.5:
        return sample
    out = {key: value[:, ::-1].copy() for key, value in sample.items()}
    if "normals" in out:
        out["normals"][:, :, 0] *= -1
    return out


def photometric(sample, rng):
    def convert(values, factor=1.0, offset=0.0):
        moved = values.astype(np.float32) * np.float32(factor) + np.float32(offset)
        return np.clip(moved, 0, 255).astype(np.uint8)

    def coin():
        return rng.integers(2) == 1

    image = sample["image"].astype(np.uint8)
    if coin():
        image = convert(image, offset=rng.uniform(-32, 32))
    first = coin()
    if first and coin():
        image = convert(image, factor=rng.uniform(0.5, 1.5))
    if coin():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[:, :, 1] = convert(hsv[:, :, 1], factor=rng.uniform(0.5, 1.5))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if coin():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + rng.integers(-18, 18)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not first and coin():
        image = convert(image, factor=rng.uniform(0.5, 1.5))
    return {**sample, "image": image.astype(np.float32)}


def normalize(sample):
    return {**sample, "image": ((sample["image"] / 255.0 - MEAN) / STD).astype(np.float32)}


def pad(sample, size):
    fill = {"depth": 0, "normals": 0, "image": 0}
    out = {}
    for key, value in sample.items():
        h, w = value.shape[:2]
        dy, dx = max(size[0] - h, 0), max(size[1] - w, 0)
        big = np.full((h + dy, w + dx, *value.shape[2:]), fill.get(key, 255), value.dtype)
        big[dy // 2 : dy // 2 + h, dx // 2 : dx // 2 + w] = value
        out[key] = big
    return out


def ignore(sample):
    out = dict(sample)
    if "normals" in out:
        zero = np.linalg.norm(out["normals"], axis=2) == 0
        out["normals"] = np.where(zero[:, :, None], 255, out["normals"])
    if "human_parts" in out and set(np.unique(out["human_parts"])) <= {0, 255}:
        out["human_parts"] = np.full_like(out["human_parts"], 255)
    if "depth" in out:
        out["depth"] = np.where(out["depth"] == 0, 255, out["depth"])
    return out


def family_a_train(sample, rng, size):
    sample = random_flip(random_crop(random_scaling(sample, rng), rng, size), rng)
    return ignore(pad(normalize(photometric(sample, rng)), size))


def family_a_eval(sample, size):
    return ignore(pad(normalize(sample), size))


def scale_n_rotate(sample, angle, zoom):
    out = {}
    for key, value in sample.items():
        h, w = value.shape[:2]
        matrix = cv2.getRotationMatrix2D((w / 2, h / 2), angle, zoom)
        mode = cv2.INTER_CUBIC if key in ("image", "normals") else cv2.INTER_NEAREST
        if key == "normals":
            phase = np.arctan2(value[..., 0], value[..., 1]) + math.radians(angle)
            radius = np.hypot(value[..., 0], value[..., 1])
            value = np.stack([radius * np.sin(phase), radius * np.cos(phase), value[..., 2]], axis=-1)
        warped = with_channel(cv2.warpAffine(value, matrix, (w, h), flags=mode), value)
        out[key] = (warped / zoom).astype(np.float32) if key == "depth" else warped
    return out


def fixed_resize(sample, size):
    out = {}
    for key, value in sample.items():
        mode = cv2.INTER_CUBIC if key in ("image", "normals") else cv2.INTER_NEAREST
        resized = with_channel(cv2.resize(value, (size[1], size[0]), interpolation=mode), value)
        if key == "normals":
            resized = resized / (np.linalg.norm(resized, axis=2, keepdims=True) + np.finfo(np.float32).eps)
        out[key] = resized
    return out


def family_b_eval(sample, size):
    sample = ignore(fixed_resize(sample, size))
    sample["image"] = np.clip(sample["image"], 0, 255).astype(np.uint8).astype(np.float32)
    return normalize(sample)


def family_b_train(sample, rng, size, angles=None, zooms=(1.0, 1.2, 1.5)):
    sample = random_flip(sample, rng)
    angle = rng.uniform(*angles) if angles else 0.0
    zoom = rng.uniform(0.75, 1.25) if angles else zooms[rng.integers(len(zooms))]
    return family_b_eval(scale_n_rotate(sample, angle, zoom), size)


def family_c_train(sample, rng):
    h, w = sample["image"].shape[:2]
    zoom = (1.0, 1.2, 1.5)[rng.integers(3)]
    ch, cw = int(h / zoom), int(w / zoom)
    y, x = rng.integers(0, h - ch + 1), rng.integers(0, w - cw + 1)
    out = {}
    for key, value in sample.items():
        planes = value[:, :, None] if value.ndim == 2 else value
        part = torch.from_numpy(planes[y : y + ch, x : x + cw].astype(np.float32)).permute(2, 0, 1)[None]
        if key in ("image", "normals"):
            big = torch.nn.functional.interpolate(part, size=(h, w), mode="bilinear", align_corners=True)
        else:
            big = torch.nn.functional.interpolate(part, size=(h, w), mode="nearest")
        array = big[0].permute(1, 2, 0).numpy().reshape(value.shape)
        out[key] = (array / zoom).astype(np.float32) if key == "depth" else array
    out = random_flip(out, rng)
    return {**out, "image": out["image"] / 255.0}
