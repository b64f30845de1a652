"""The client of Weights & Biases, started so that nothing ever waits for a key or for a dead server."""

from __future__ import annotations

import logging
import netrc
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mtvision.core.files.foreign import ForeignError, foreign_errors

_log = logging.getLogger("mtvision")

PROBE_TIMEOUT = 5.0
"""Seconds that W&B's server has to answer at all."""
INIT_TIMEOUT = 30.0
"""Seconds that W&B's server has to start a run."""
FINISH_TIMEOUT = 120.0
"""Seconds that the last uploads of a W&B run may take."""


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
