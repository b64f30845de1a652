"""The embedded data set: nothing to download, any number of images, any size, exact labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtvision.core.instances import encode_instances
from mtvision.core.naming import look_up
from mtvision.core.registry import DATASETS
from mtvision.core.sample import Meta, RawSample
from mtvision.core.values import Count, Positive
from mtvision.data.dataset import DenseDataset
from mtvision.data.synthetic.cache import RenderCache
from mtvision.data.synthetic.generate import KINDS, SPLITS, VERSION, make_scene
from mtvision.data.synthetic.render import Rendering, check_size, render
from mtvision.data.synthetic.scene import CLASS_ID
from mtvision.data.transforms import Transform
from mtvision.protocols import SYNTHETIC, Protocol
from mtvision.protocols.synthetic import FEET

_LENGTHS = {"train": 2000, "val": 100, "test": 200}
LABELS = (
    "semseg", "depth", "depth_feet", "normals", "edge", "saliency", "human_parts", "instance"
)  # fmt: skip


@DATASETS.register_module()
class SyntheticScenes(DenseDataset):
    """Ray-cast rooms and streets, a function of (scene seed, split, index).

    Labels: `semseg` of every pixel. `depth` in metres along the optical axis (`depth_feet`: in feet),
    `normals` as unit vectors in camera space (x right, y up, z towards the camera). Both are NaN in the sky.
    `edge` 1 on boundaries of classes, instances and occlusions, else 0. `saliency` 1 on the one or two most
    salient objects. `human_parts`, 255 throughout in images without people. `instance` where the protocol has
    that task: ids of the classes that it names (`mtvision.core.instances`).

    Args:
        split: `train`, `val` or `test`; they never share a scene.
        length: number of images, by default 2000, 100 and 200. A longer set begins with the shorter one.
        size: (H, W) in pixels; the same scenes at any size.
        scene_seed: chooses the scenes. It is not the run's seed: every run is tested on the same images.
        seed: with epoch and index, the transforms' draws.
        scenes: `room`, `street` or both.
        cache_dir: folder to keep renderings in; None renders every time. Reading a 96 x 128 sample from it
            takes a few milliseconds, about 90 KB each.
        instances: put the int32 map (H, W) of instance ids into `meta.extra["instances"]`. It is in the frame
            before transforms.
        protocol: `synthetic-scenes` if not given.
        tasks: restrict to these tasks.
        transforms: see `DenseDataset`.

    Raises:
        UnknownNameError: unknown split, kind of scene or task.
        ValueError: a size under 8 pixels, no image at all, or no kind of scene.
    """

    default_protocol: ClassVar[Protocol] = SYNTHETIC

    def __init__(
        self,
        *,
        split: str = "train",
        length: Positive | None = None,
        size: tuple[Positive, Positive] = (96, 128),
        scene_seed: Count = 0,
        seed: Count = 0,
        scenes: Sequence[str] = ("room", "street"),
        cache_dir: str | Path | None = None,
        instances: bool = False,
        protocol: Protocol | None = None,
        tasks: Sequence[str] | None = None,
        transforms: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | Transform] = "tensor",
    ) -> None:
        look_up("split of the synthetic scenes", split, SPLITS)
        length = _LENGTHS[split] if length is None else length
        if length < 1:
            raise ValueError(f"SyntheticScenes: length must be at least 1, got {length}.")
        if isinstance(scenes, str) or not scenes:
            raise ValueError(
                f"SyntheticScenes: scenes must list one or more of {', '.join(KINDS)}, got {scenes!r}."
            )
        for kind in scenes:
            look_up("kind of synthetic scene", kind, KINDS)
        self.scene_seed = scene_seed
        self.size = check_size(size)
        self.scenes = tuple(scenes)
        self.instances = instances
        super().__init__(
            ids=[f"{split}-{index:06d}" for index in range(length)],
            protocol=protocol,
            split=split,
            transforms=transforms,
            seed=seed,
            tasks=tasks,
        )
        for name in self.tasks:
            look_up("label of the synthetic scenes", name, dict.fromkeys(LABELS))
        self._cache = None if cache_dir is None else RenderCache(cache_dir, self.parameters())

    def parameters(self) -> Mapping[str, Any]:
        """What decides the content of the samples: generator version, seed, split, kinds of scene, size."""
        return {
            "generator": VERSION,
            "seed": self.scene_seed,
            "split": self.split,
            "scenes": list(self.scenes),
            "size": list(self.size),
        }

    def rendering(self, index: int) -> Rendering:
        """Image and all maps of one index, from the cache if there is one."""
        name = self.ids[index]
        found = None if self._cache is None else self._cache.load(name, self.size)
        if found is None:
            found = render(make_scene(self.scene_seed, self.split, index, self.scenes), self.size)
            if self._cache is not None:
                self._cache.save(name, found)
        return found

    def _things(self, maps: Rendering) -> NDArray[np.int32]:
        task = self.tasks.get("instance")
        if task is None:
            return maps.instances
        things = [look_up("class of the synthetic scenes", name, CLASS_ID) for name in task.class_names]
        category = np.full(256, -1, dtype=np.int64)
        category[things] = np.arange(len(things))
        return encode_instances(category[maps.semseg], maps.instances)

    def read(self, index: int) -> RawSample:
        """The sample of one index, untransformed."""
        maps = self.rendering(index)
        makers = {
            "semseg": maps.semseg,
            "depth": maps.depth[..., None],
            "depth_feet": FEET * maps.depth[..., None],
            "normals": maps.normals,
            "edge": maps.edge[..., None],
            "saliency": maps.saliency,
            "human_parts": maps.human_parts,
            "instance": self._things(maps),
        }
        labels: dict[str, NDArray[Any]] = {name: np.asarray(makers[name]) for name in self.tasks}
        extra = {"instances": maps.instances} if self.instances else {}
        meta = Meta(id=self.ids[index], size=self.size, original_size=self.size, extra=extra)
        return RawSample(image=maps.image, labels=labels, tasks=self.tasks, meta=meta)
