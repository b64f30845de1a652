"""The Hugging Face hub: download a shared network, upload one.

`huggingface_hub` does the work; timm brings it. Its settings are `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and
`HF_HUB_OFFLINE`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.core.naming import ReportedError
from mtvision.report.record import Record
from mtvision.runtime.atomic import write_text
from mtvision.runtime.checkpoint import load_checkpoint
from mtvision.runtime.whole import file_sha256
from mtvision.share.card import eval_results, model_card
from mtvision.share.source import SHARED_FILE, find_source
from mtvision.share.weights import share_checkpoint

RECORD_FILE = "record.json"
EVAL_RESULTS = ".eval_results/mtvision.yaml"
CARD = "README.md"
_TRUE = ("1", "true", "yes", "on")


class ShareError(ReportedError, OSError):
    """A repository of the hub that cannot be read or written; the message names it and the cause."""


def download(repository: str, revision: str | None = None) -> Path:
    """The weights of a shared network, from the cache where they are there already.

    Only `model.safetensors` is downloaded: tensors and JSON. A repository's Python files and pickles are
    never touched.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit; None = `main`.

    Raises:
        ShareError: no such repository, revision or file, no access, or no network and no copy in the cache.
    """
    from huggingface_hub import hf_hub_download

    with _hub_errors(repository, "download"):
        return Path(
            hf_hub_download(
                repository,
                SHARED_FILE,
                revision=revision,
                endpoint=_endpoint(),
                local_files_only=_offline(),
                library_name="mtvision",
            )
        )


def push_to_hub(
    source: str | Path,
    repository: str,
    *,
    licence: str | None = None,
    half: bool = False,
    record: Record | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Upload a network: weights with their config, a model card, scores and the record.

    Args:
        source: a checkpoint, see `mtvision.share.source.find_source`.
        repository: `owner/name`; made where there is none.
        licence: SPDX name of the weights' licence, e.g. `CC-BY-4.0`.
        half: store weights in 16 bits.
        record: of these weights; None = `record.json` beside the checkpoint, if it is of that file.
        private: of a new repository.
        revision: branch; None = `main`.

    Returns:
        Address of the commit.

    Raises:
        ShareError: no token, no right, no network.
        FileNotFoundError, CheckpointError, OSError: the checkpoint cannot be shared.
    """
    from huggingface_hub import HfApi

    if _offline():
        raise ShareError(f"{repository}: HF_HUB_OFFLINE is set, so nothing is uploaded. Unset it.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_shared(source, folder, name=repository, licence=licence, half=half, record=record)
        with _hub_errors(repository, "upload"):
            api = HfApi(endpoint=_endpoint(), library_name="mtvision")
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                revision=revision,
                commit_message="Upload a network of mtvision",
            )
    return str(commit.commit_url)


def write_shared(
    source: str | Path,
    folder: Path,
    *,
    name: str,
    licence: str | None = None,
    half: bool = False,
    record: Record | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write the files of a repository: weights, card, and with a record its scores.

    Args:
        source: a checkpoint, see `mtvision.share.source.find_source`.
        folder: receives them.
        name: title of the card.
        licence: as `push_to_hub`.
        half: as `push_to_hub`.
        record: as `push_to_hub`.
        overwrite: replace files of these names.

    Raises:
        FileExistsError: such a file is there, and `overwrite` is off.
        FileNotFoundError, CheckpointError, OSError: the checkpoint cannot be read or a file not written.
    """
    found = find_source(source)
    record = record or record_of(Path(found.file))
    names = [SHARED_FILE, CARD, *([EVAL_RESULTS, RECORD_FILE] if record is not None else [])]
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{folder}: {', '.join(there)} exist already. Choose another folder, or replace them with "
            "--overwrite."
        )
    weights = share_checkpoint(found.file, folder / SHARED_FILE, licence=licence, half=half)
    notes = load_checkpoint(weights)["meta"]
    written = [weights, folder / CARD]
    write_text(written[1], model_card(name, notes, record, size=weights.stat().st_size))
    if record is not None:
        write_text(folder / EVAL_RESULTS, eval_results(record))
        record.save(folder / RECORD_FILE)
        written += [folder / EVAL_RESULTS, folder / RECORD_FILE]
    return written


def record_of(checkpoint: Path) -> Record | None:
    """The record beside a checkpoint, if it was made from that very file."""
    path = checkpoint.parent / RECORD_FILE
    if not path.is_file() or not checkpoint.is_file():
        return None
    record = Record.load(path)
    return record if (record.checkpoint or {}).get("sha256") == file_sha256(checkpoint) else None


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE


@contextmanager
def _hub_errors(repository: str, action: str) -> Iterator[None]:
    """Errors of the hub as one line with a remedy."""
    from huggingface_hub import errors

    try:
        with foreign_errors():
            yield
    except ForeignError as foreign:
        error = foreign.error
        where = f"{repository}: cannot {action}"
        if isinstance(error, errors.GatedRepoError):
            text = "access has to be granted first. Ask for it on the repository's page, and set HF_TOKEN."
        elif isinstance(error, errors.RepositoryNotFoundError):
            text = (
                "the hub has no such repository, or your token may not see it. Check the name and HF_TOKEN."
            )
        elif isinstance(error, errors.RevisionNotFoundError):
            text = "it has no such revision. Check what follows the @."
        elif isinstance(error, errors.RemoteEntryNotFoundError):
            text = f"it holds no {SHARED_FILE}, so it was not shared by mtvision."
        elif isinstance(error, errors.LocalTokenNotFoundError):
            text = "no token. Log in with `hf auth login`, or set HF_TOKEN."
        elif isinstance(error, errors.LocalEntryNotFoundError) and _offline():
            text = "HF_HUB_OFFLINE is set and the cache has no copy. Load it once with a network."
        elif isinstance(error, errors.LocalEntryNotFoundError):
            text = "the hub cannot be reached and the cache has no copy. Check network and HF_ENDPOINT."
        else:
            text = foreign.first_line
        raise ShareError(f"{where}: {text}") from error
