"""Light: Lambert's law with one lamp or sun, ambient light and cast shadows; sky; sensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtvision.data.synthetic.intersect import View, corners, dot3, slabs
from mtvision.data.synthetic.scene import BOX, CAPSULE, Float, Scene, Sky
from mtvision.data.synthetic.surface import Hits
from mtvision.data.synthetic.texture import Palette, Single, hashed, smooth

_REACH = 40.0
"""Metres within which a shadow is looked for."""


def shade(scene: Scene, view: View, hits: Hits) -> NDArray[np.uint8]:
    """The image: RGB (H, W, 3) in 0..255."""
    height, width = view.size
    light = np.empty((3, height * width), dtype=np.float32)
    if scene.sky is not None:
        light[...] = _sky_light(scene.sky, view)
    u = np.where(hits.face == 0, hits.local[1], hits.local[0]).astype(np.float32)
    v = np.where(hits.face == 2, hits.local[1], hits.local[2]).astype(np.float32)
    footprint = (hits.depth / view.focal / np.maximum(hits.facing, 0.1)).astype(np.float32)
    seeds = hits.instance.astype(np.int64) + scene.seed
    albedo, glow = Palette(scene.materials).albedo(hits.surface, u, v, footprint, seeds)
    strength, skyward = _lambert(scene, view, hits)
    for channel in range(3):
        ambient = np.float32(scene.lamp.ambient[channel]) * skyward
        total = ambient + np.float32(scene.lamp.colour[channel]) * strength + glow
        light[channel, hits.pixel] = albedo[channel] * total
    pixels = np.arange(height * width)
    grain = 1 + 0.06 * (hashed(pixels % width, pixels // width, scene.seed) - 0.5)
    exposure = np.array(scene.exposure, dtype=np.float32)[:, None]
    image = np.sqrt(np.clip(light * exposure * grain, 0, 1)) * np.float32(255) + np.float32(0.5)
    return np.ascontiguousarray(image.astype(np.uint8).T.reshape(height, width, 3))


def _lambert(scene: Scene, view: View, hits: Hits) -> tuple[Single, Single]:
    """Direct light after shadows, and the share of ambient light (less from below)."""
    lamp = scene.lamp
    if lamp.is_sun:
        to_light = [np.full(len(hits.pixel), value) for value in lamp.at]
        falloff: Float | float = 1.0
    else:
        to_light = [lamp.at[k] - hits.point[k] for k in range(3)]
        square = to_light[0] * to_light[0] + to_light[1] * to_light[1] + to_light[2] * to_light[2]
        distance = np.sqrt(np.maximum(square, 1e-6))
        to_light = [values / distance for values in to_light]
        falloff = 2.0 / (1.0 + square / (lamp.reference * lamp.reference))
    cosine = sum(to_light[k] * hits.normal[k] for k in range(3))
    direct = np.maximum(cosine, 0) * falloff
    if lamp.shadow > 0:
        direct *= 1 - lamp.shadow * _shadows(scene, view, hits)
    skyward = 0.78 + 0.22 * hits.normal[2]
    return np.asarray(direct, dtype=np.float32), np.asarray(skyward, dtype=np.float32)


def _shadows(scene: Scene, view: View, hits: Hits) -> Float:
    """Darkness 0..1 of each hit.

    Boxes throw the shadow of their shape, round bodies a soft one of the ellipsoid that fits inside.
    """
    rows = np.flatnonzero(scene.casts)
    dark = np.zeros(view.size[0] * view.size[1])
    if not len(rows):
        return dark[hits.pixel]
    points = np.zeros((3, *view.size))
    for k in range(3):
        points[k].reshape(-1)[hits.pixel] = hits.point[k]
    light = np.array(scene.lamp.at)
    lit = dark.reshape(view.size)
    half = scene.half[rows].copy()
    half[:, 2] *= np.where(scene.kind[rows] == CAPSULE, scene.shape[rows] + 1, 1.0)
    maps = scene.axes[rows] / half[:, :, None]
    start = dot3(maps, scene.centre[rows][:, None])
    target = dot3(maps, light[None, None])
    end = np.inf if scene.lamp.is_sun else 1.0
    for n, window in enumerate(view.windows(_shadow_hulls(scene, rows))):
        if window is None:
            continue
        top, bottom, left, right = window
        x, y, z = points[:, None, top:bottom, left:right]
        to_x, to_y, to_z = maps[n].T[:, :, None, None]
        o = to_x * x
        o += to_y * y
        o += to_z * z
        o -= start[n, :, None, None]
        aim = target[n, :, None, None]
        d = aim.copy() if scene.lamp.is_sun else aim - start[n, :, None, None] - o
        shadow = (_box_shadow if scene.kind[rows[n]] == BOX else _ball_shadow)(o, d, end)
        np.maximum(lit[top:bottom, left:right], shadow, out=lit[top:bottom, left:right])
    return dark[hits.pixel]


def _box_shadow(o: Float, d: Float, end: float) -> Float:
    """1 where o + t d meets the cube for a t in (0, end); (3, h, w) starts, as many directions or one."""
    enter, leave = slabs(o, d)
    return ((enter < leave) & (enter > 1e-6) & (enter < end)).astype(np.float64)


def _ball_shadow(o: Float, d: Float, end: float) -> Float:
    """How deep o + t d, t in (0, end), passes into the unit sphere, with a soft rim."""
    square = _sum3(d * d)
    closest = _sum3(o * d)
    np.negative(closest, out=closest)
    closest /= square
    p = closest * d
    p += o
    p *= p
    lit = (1.25 - _sum3(p)) * 2
    np.clip(lit, 0, 1, out=lit)
    return np.where((closest > 0) & (closest < end), lit, 0.0)


def _sum3(terms: Float) -> Float:
    """Sum over the first axis of length 3, in a fixed order; the terms are overwritten."""
    total = terms[0]
    total += terms[1]
    total += terms[2]
    return np.asarray(total)


def _shadow_hulls(scene: Scene, rows: NDArray[np.int64]) -> Float:
    """(N, 16, 3) points around the casters and their shadows."""
    near = corners(scene, rows)
    light = np.array(scene.lamp.at)
    if scene.lamp.is_sun:
        drop = np.maximum(near[..., 2:] + 0.3, 0.0) / max(light[2], 0.1)
        return np.concatenate([near, near - light * np.minimum(drop, _REACH)], axis=1)
    away = near - light
    low, high = scene.centre[0] - scene.half[0], scene.centre[0] + scene.half[0]
    bound = np.where(away > 0, high, low) - light
    reach = (bound / np.where(np.abs(away) < 1e-6, 1e-6, away)).min(axis=-1, keepdims=True)
    return np.concatenate([near, light + away * np.clip(reach * 1.4, 1.0, 50.0)], axis=1)


def _sky_light(sky: Sky, view: View) -> Single:
    """(3, H * W) linear light of the sky along every pixel's ray."""
    right, up, forward = view.basis
    x, y, z = ((right[k] * view.u + forward[k])[None] + (up[k] * view.v)[:, None] for k in range(3))
    level = np.sqrt(x * x + y * y)
    rise = np.clip(z / np.maximum(level, 1e-6), 0, 3)
    blend = np.clip(rise * 1.6, 0, 1)
    flat = 1.0 / (rise + 0.15)
    u = (x / np.maximum(level, 1e-6) * flat * 12 + sky.seed % 97).astype(np.float32)
    v = (y / np.maximum(level, 1e-6) * flat * 12 + sky.seed % 89).astype(np.float32)
    cloud = np.clip((smooth(u * 2, v * 2) - (1 - sky.cover)) * 4, 0, 1)
    light = np.empty((3, x.size), dtype=np.float32)
    for channel in range(3):
        colour = sky.horizon[channel] + blend * (sky.zenith[channel] - sky.horizon[channel])
        colour = colour + cloud * (sky.cloud[channel] - colour)
        light[channel] = (colour * colour).ravel()
    return light
