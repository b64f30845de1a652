"""Loggers for TensorBoard and Weights & Biases. A logger that fails is switched off; training continues."""

from __future__ import annotations

import logging
import netrc
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from mtvision.recipe.sections import LoggingSettings
from mtvision.report.record import Record
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.foreign import ForeignError, foreign_errors

_log = logging.getLogger("mtvision")

PROBE_TIMEOUT = 5.0
"""Seconds that W&B's server has to answer at all."""
INIT_TIMEOUT = 30.0
"""Seconds that W&B's server has to start a run."""
FINISH_TIMEOUT = 120.0
"""Seconds that the last uploads of a W&B run may take."""

NUMBERS = "the run continues; its numbers are in losses.jsonl and record.json"


class RunLogger(Protocol):
    """A destination for numbers and pictures."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step."""

    def image(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Write an RGB picture (H, W, 3)."""

    def finish(self, summary: Mapping[str, float]) -> None:
        """Write final numbers and close."""


class TensorBoardLogger:
    """Event files in `<work_dir>/tensorboard`."""

    def __init__(self, work_dir: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("logging.tensorboard needs `pip install 'mtvision[tensorboard]'`.") from error
        self._writer = SummaryWriter(str(work_dir / "tensorboard"))  # type: ignore[no-untyped-call]
        self._step = 0

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step."""
        self._step = max(self._step, step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]

    def image(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Write an RGB picture (H, W, 3)."""
        self._writer.add_image(name, picture, step, dataformats="HWC")  # type: ignore[no-untyped-call]

    def finish(self, summary: Mapping[str, float]) -> None:
        """Write final numbers at the end of the curves and close."""
        self.scalars({f"final/{name}": value for name, value in summary.items()}, self._step)
        self._writer.close()  # type: ignore[no-untyped-call]


class WandbLogger:
    """A Weights & Biases run below the work dir.

    Online if a key is configured and the server answers, else offline with one warning; `WANDB_MODE=offline`
    asks for that without one. Nothing waits for a server longer than the limits of this module.
    """

    def __init__(
        self,
        work_dir: Path,
        *,
        name: str,
        project: str,
        config: Mapping[str, Any],
        run_id: str,
        **options: Any,
    ) -> None:
        wandb = import_wandb()
        self._wandb = wandb
        self._run = start_wandb_run(
            wandb, work_dir, name=name, project=project, config=dict(config), id=run_id, **options
        )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step."""
        self._run.log(dict(values), step=step)

    def image(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Write an RGB picture (H, W, 3)."""
        self._run.log({name: self._wandb.Image(picture)}, step=step)

    def finish(self, summary: Mapping[str, float]) -> None:
        """Write final numbers into the run's summary and close."""
        self._run.summary.update({f"final/{name}": value for name, value in summary.items()})
        self._run.finish()


def import_wandb() -> Any:
    """The client; raises `ImportError` with the command that installs it."""
    try:
        import wandb
    except ImportError as error:
        raise ImportError("logging.wandb needs `pip install 'mtvision[wandb]'`.") from error
    return wandb


def start_wandb_run(wandb: Any, folder: Path, **options: Any) -> Any:
    """`wandb.init` below `folder` that never asks for a key and never waits for a dead server.

    Args:
        wandb: the client.
        folder: receives `wandb/`.
        options: of `wandb.init`.
    """
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    reason = _unreachable() if mode == "online" else None
    if mode == "online" and reason is None:
        try:
            with foreign_errors():
                return _init(wandb, folder, "online", options)
        except ForeignError as error:
            wandb.teardown()  # the failed run would keep its id
            reason = str(error)
    if reason is not None:
        mode = "offline"
        _log.warning(
            "Weights & Biases is not available (%s); this run is written offline. Upload it later with "
            "`wandb sync %s`.",
            reason.splitlines()[0],
            folder / "wandb" / "offline-run-*",
        )
    return _init(wandb, folder, mode, options)


def _init(wandb: Any, folder: Path, mode: str, options: Mapping[str, Any]) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        "init_timeout": INIT_TIMEOUT,
        "finish_timeout": FINISH_TIMEOUT,  # a server that dies during training must not hold its end up
        "finish_timeout_raises": True,
    }
    declared = wandb.Settings.model_fields  # earlier clients have no `finish_timeout`
    known = {name: value for name, value in wanted.items() if name in declared}
    return wandb.init(dir=str(folder), mode=mode, settings=wandb.Settings(**known), resume="allow", **options)


def _base_url() -> str:
    return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    for file in filter(None, (os.environ.get("NETRC"), Path.home() / ".netrc", Path.home() / "_netrc")):
        try:
            if netrc.netrc(str(file)).authenticators(urlsplit(_base_url()).hostname or ""):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _unreachable() -> str | None:
    """Why an online run cannot start, or None; any answer of the server counts as alive."""
    if not _has_key():
        return f"no API key for {_base_url()}; set WANDB_API_KEY or use `wandb login`"
    try:
        with urllib.request.urlopen(_base_url(), timeout=PROBE_TIMEOUT):  # knows about proxies
            return None
    except urllib.error.HTTPError:
        return None
    except urllib.error.URLError as error:
        return f"{_base_url()} does not answer: {error.reason}"
    except (OSError, ValueError) as error:
        return f"{_base_url()} does not answer: {error}"


class Loggers:
    """All loggers of a run. An exception in one of them is reported once and ends only that logger.

    Args:
        settings: which ones.
        work_dir: where their files go.
        name: of the run.
        config: for the W&B page.
        run_id: stable id, so that a resumed run continues its curves.
    """

    def __init__(
        self, settings: LoggingSettings, work_dir: Path, *, name: str, config: Mapping[str, Any], run_id: str
    ) -> None:
        self._active: list[RunLogger] = []
        self._attempts = Attempts()
        if settings.tensorboard:
            self._start("TensorBoard", lambda: TensorBoardLogger(work_dir))
        if settings.wandb:
            self._start(
                "Weights & Biases",
                lambda: WandbLogger(
                    work_dir, name=name, project=settings.project, config=config, run_id=run_id
                ),
            )

    @property
    def active(self) -> bool:
        """Whether anything is written."""
        return bool(self._active)

    @property
    def failures(self) -> list[str]:
        """One line per logger that could not start or was switched off."""
        return self._attempts.lines

    def _start(self, name: str, make: Callable[[], RunLogger]) -> None:
        """Only a package that is not installed is an error; a dead server must never stop a training run."""
        logger = self._attempts.run(f"{name} is off for this run", make, NUMBERS, passed=(ImportError,))
        if logger is not None:
            self._active.append(logger)

    def _each(self, call: Callable[[RunLogger], None]) -> None:
        for logger in list(self._active):
            if not self._attempts.done(f"{type(logger).__name__} stopped", partial(call, logger), NUMBERS):
                self._active.remove(logger)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step everywhere."""
        self._each(lambda logger: logger.scalars(values, step))

    def image(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Write a picture everywhere."""
        self._each(lambda logger: logger.image(name, picture, step))

    def finish(self, summary: Mapping[str, float]) -> None:
        """Close all."""
        self._each(lambda logger: logger.finish(summary))


def record_summary(record: Record) -> dict[str, float]:
    """The numbers of a record that a run ends with: scores, gain, cost, hours; `{name: number}`."""
    found: dict[str, Any] = {
        f"{task}/{name}": value for task, scores in record.scores.items() for name, value in scores.items()
    }
    cost = record.cost or {}
    found["gain_percent"] = (record.gain or {}).get("percent")
    found["cost/parameters"] = (cost.get("parameters") or {}).get("total")
    found["cost/macs"] = (cost.get("macs") or {}).get("total")
    found["cost/latency_ms"] = (cost.get("latency") or {}).get("median_ms")
    found["cost/memory_bytes"] = (cost.get("peak_memory") or {}).get("bytes")
    found["hours"] = (record.training or {}).get("hours")
    return {name: float(value) for name, value in found.items() if value is not None}
