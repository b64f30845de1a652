"""What a network predicts for one picture: maps, drawings, numbers and files."""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.naming import look_up
from mtvision.core.task import Task
from mtvision.evaluation.predict.outputs import DEFAULT_IMAGE, IMAGE_KINDS, Places, check_outputs
from mtvision.evaluation.predict.statistics import statistics
from mtvision.evaluation.predict.writing import save_maps, write_image
from mtvision.visualize import panel, write_picture
from mtvision.visualize.overlays import overlay

Picture = NDArray[np.uint8]
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


class Result(Mapping[str, NDArray[Any]]):
    """The maps of one picture, `{task: map}`; a notebook shows it as a picture.

    Class maps are ids (H, W); other maps are float32 (C, H, W) in the units of their task.

    Args:
        image: RGB (H, W, 3), uint8.
        maps: {task: map} of the image's size.
        tasks: of these maps, in order.
        name: of its files.

    >>> import mtvision
    >>> result = mtvision.load("demo", tasks=["depth"]).predict(np.zeros((48, 64, 3), np.uint8))
    >>> list(result), result["depth"].shape, result["depth"].dtype
    (['depth'], (1, 48, 64), dtype('float32'))
    >>> result.overlay("depth").shape
    (48, 64, 3)
    """

    def __init__(
        self, image: Picture, maps: Mapping[str, NDArray[Any]], tasks: Sequence[Task], *, name: str = "image"
    ) -> None:
        self.image, self.name = image, name
        self._maps, self._tasks = dict(maps), {task.name: task for task in tasks}

    def __getitem__(self, task: str) -> NDArray[Any]:
        return look_up("task of the result", task, self._maps)

    def __contains__(self, task: object) -> bool:
        return task in self._maps

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def panel(self, tasks: Sequence[str] | None = None) -> Picture:
        """The picture beside its maps, with legends, RGB (h, w, 3).

        Args:
            tasks: which maps; None = all.
        """
        chosen = self._chosen(tasks)
        return panel(self.image, self._maps, chosen, title=self.name)

    def overlay(self, task: str, *, opacity: float = 0.55) -> Picture:
        """One map over the picture, pixel on pixel, RGB (H, W, 3)."""
        return overlay(self.image, self._chosen([task])[0], self._maps[task], opacity=opacity)

    def statistics(self) -> dict[str, Any]:
        """{task: numbers}: shares of classes; least, mean and highest value."""
        return {name: statistics(self._tasks[name], values) for name, values in self._maps.items()}

    def show(self, tasks: Sequence[str] | None = None) -> None:
        """Show `panel`: in a notebook below the cell, elsewhere in the system's viewer."""
        from PIL import Image

        picture = Image.fromarray(self.panel(tasks))
        if "ipykernel" in sys.modules:
            import_module("IPython.display").display(picture)
        else:
            picture.show(title=self.name)

    def save(
        self, path: str | Path, kinds: Sequence[str] = DEFAULT_IMAGE, *, overwrite: bool = False
    ) -> list[Path]:
        """Write files.

        Args:
            path: a picture (`.png`, `.jpg`) for the panel, `.npz` for all maps, or a folder for `kinds`.
            kinds: of a folder, as `mtvision predict --save`: `panel`, `overlay`, `npz`, `npy`, `png`.
            overwrite: replace earlier files.

        Returns:
            The files.

        Raises:
            FileExistsError: a file is there already.
            UnknownNameError: a kind that there is not.
            OSError: a file cannot be written.
        """
        place, ending = Path(path), Path(path).suffix.lower()
        if ending in (*PICTURES, ".npz"):
            check_outputs({self.name: [place]}, [], overwrite=overwrite)
            if ending == ".npz":
                save_maps(place, self._maps)
            else:
                write_picture(place, self.panel())
            return [place]
        for kind in kinds:
            look_up("kind of output of one picture", kind, IMAGE_KINDS)
        places = Places(place, self._chosen(None), kinds)
        check_outputs({self.name: places.planned_image(self.name)}, [], overwrite=overwrite)
        return list(write_image(places, kinds, self.name, self.image, self._maps))

    def _chosen(self, names: Sequence[str] | None) -> list[Task]:
        chosen = list(self._maps) if names is None else [names] if isinstance(names, str) else list(names)
        return [look_up("task of the result", name, self._tasks) for name in chosen]

    def _repr_png_(self) -> bytes:
        return bytes(cv2.imencode(".png", self.panel()[..., ::-1])[1])

    def _repr_html_(self) -> str:
        picture = base64.b64encode(self._repr_png_()).decode()
        return (
            f'<figure><img alt="{html.escape(repr(self))}" src="data:image/png;base64,{picture}" '
            f'style="max-width:100%"><figcaption>{html.escape(repr(self))}</figcaption></figure>'
        )

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        maps = ", ".join(
            f"{name} {'×'.join(map(str, item.shape))} {item.dtype}" for name, item in self._maps.items()
        )
        return f"Result({self.name}, {height}×{width}: {maps})"
