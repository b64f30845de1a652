"""A run in Weights & Biases: curves, tables of predictions with masks, record and checkpoint as artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtvision.tracking.run import Mask, Picture, PredictedImage, RunFacts, RunFile
from mtvision.tracking.wandb_client import import_wandb, start_wandb_run

STEP = "iteration"
"""The number that curves are drawn against."""
NO_LABEL = 255
ARTIFACTS = {"record": "record", "checkpoint": "model"}
"""{kind of a file: type of its artifact}"""


class WandbLogger:
    """A Weights & Biases run below the work dir.

    Online if a key is configured and the server answers, else offline with one warning; `WANDB_MODE=offline`
    asks for that without one. Nothing waits for a server longer than the limits of
    `mtvision.tracking.wandb_client`.

    Args:
        work_dir: receives `wandb/`.
        facts: of the run.
    """

    def __init__(self, work_dir: Path, facts: RunFacts) -> None:
        self._wandb = import_wandb()
        self._facts = facts
        self._rows: list[list[Any]] = []
        options: dict[str, Any] = {"group": facts.group[:128]} if facts.group else {}
        self._run = start_wandb_run(
            self._wandb,
            work_dir,
            name=facts.name,
            project=facts.project,
            config={**facts.config, **({"grid": dict(facts.grid)} if facts.grid else {})},
            id=facts.run_id,
            job_type="train",
            tags=[tag[:64] for tag in facts.tags],
            **options,
        )
        self._define_metrics()

    def _define_metrics(self) -> None:
        """Curves against the iteration; the summary keeps the best value of a headline score."""
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric("*", step_metric=STEP)
        for name, higher in self._facts.higher_is_better.items():
            self._run.define_metric(f"val/{name}", step_metric=STEP, summary="max" if higher else "min")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step."""
        self._log(values, step)

    def image(self, name: str, picture: Picture, step: int) -> None:
        """Write an RGB picture (H, W, 3)."""
        self._log({name: self._wandb.Image(picture)}, step)

    def predictions(self, images: Sequence[PredictedImage], step: int) -> None:
        """Write each image with masks, and a table of the images of all evaluations so far."""
        columns = [STEP, "image id", "image", *(images[0].pictures if images else ())]
        shown = {}
        for item in images:
            picture = self._wandb.Image(item.image, masks=self._masks(item.masks) or None)
            shown[f"predictions/{item.id}"] = picture
            colours = [self._wandb.Image(part) for part in item.pictures.values()]
            self._rows.append([step, item.id, picture, *colours])
        # A table that was logged cannot grow.
        shown["predictions/table"] = self._wandb.Table(columns=columns, data=list(self._rows))
        self._log(shown, step)

    def finish(self, summary: Mapping[str, float], files: Sequence[RunFile]) -> None:
        """Write final numbers into the run's summary and files as artifacts, and close."""
        self._run.summary.update({f"final/{name}": value for name, value in summary.items()})
        for item in files:
            name = f"{item.kind}-{self._facts.run_id}"
            artifact = self._wandb.Artifact(name, type=ARTIFACTS[item.kind], metadata=dict(item.facts))
            artifact.add_file(str(item.path), name=item.path.name)
            self._run.log_artifact(artifact)
        self._run.finish()

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        self._run.log({**values, STEP: step}, step=step)

    def _masks(self, masks: Mapping[str, Mask]) -> dict[str, Any]:
        """Overlays of W&B: prediction and label of each task with classes."""
        found = {}
        for task, item in masks.items():
            names = {**dict(enumerate(item.classes)), NO_LABEL: "no label"}
            found[f"{task} prediction"] = {"mask_data": item.prediction, "class_labels": names}
            if item.label is not None:
                found[f"{task} label"] = {"mask_data": item.label, "class_labels": names}
        return found
