"""A run in MLflow, whose server or folder `MLFLOW_TRACKING_URI` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtvision.tracking.run import Picture, PredictedImage, RunFacts, RunFile
from mtvision.tracking.tensorboard import flat

_LONGEST = 500
"""Characters of a setting that every version of MLflow takes."""


class MlflowLogger:
    """An MLflow run. The tag `run_id` is that of the work dir; a resumed run finds its run by it."""

    def __init__(self, work_dir: Path, facts: RunFacts) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ImportError("logging.mlflow needs `pip install 'mtvision[mlflow]'`.") from error
        self._mlflow: Any = mlflow
        mlflow.set_experiment(facts.project)
        tag = f"tags.run_id = '{facts.run_id}'"
        known = mlflow.search_runs(filter_string=tag, output_format="list", max_results=1)
        tags = {
            "run_id": facts.run_id,
            "group": facts.group,
            **{f"grid.{k}": v for k, v in facts.grid.items()},
        }
        tags |= dict.fromkeys(facts.tags, "true")
        earlier = known[0].info.run_id if known else None
        mlflow.start_run(run_id=earlier, run_name=None if earlier else facts.name, tags=tags)
        if not earlier:
            mlflow.log_params({key: str(value)[:_LONGEST] for key, value in flat(facts.config).items()})

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step."""
        self._mlflow.log_metrics(dict(values), step=step)

    def image(self, name: str, picture: Picture, step: int) -> None:
        """Write an RGB picture (H, W, 3)."""
        self._mlflow.log_image(picture, key=name.replace("/", "."), step=step)

    def predictions(self, images: Sequence[PredictedImage], step: int) -> None:
        """Write one panel per image."""
        for item in images:
            self.image(f"predictions/{item.id}", item.panel, step)

    def finish(self, summary: Mapping[str, float], files: Sequence[RunFile]) -> None:
        """Write final numbers and files, and close."""
        self._mlflow.log_metrics({f"final/{name}": value for name, value in summary.items()})
        for item in files:
            self._mlflow.log_artifact(str(item.path))
        self._mlflow.end_run()
