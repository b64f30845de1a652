"""Provenance of a result: code, versions and config, without file names of the machine."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("mtvision", "torch", "timm", "mmengine-lite", "numpy", "opencv-python-headless", "torchjd")
"""Distributions whose versions a record names, if installed."""

NO_PATH = "<path>"
"""Stands for the folders of an absolute path."""
_ABSOLUTE = re.compile(
    r"""(?:(?<=^)|(?<=[\s"'=(\[{,:]))"""  # where a path may begin: a URL's slashes do not
    r"""(?:/[\w.@+-]+(?:/[\w.@+-]+)+/?|(?<=["'])/[\w.@+-]+|~/[^\s"']+|[A-Za-z]:[\\/][^\s"']+)"""
)
_SEED = re.compile(r"(?m)^seed\s*=\s*\d+\s*$\n?")


def code_version(folder: str | Path | None = None) -> dict[str, Any]:
    """Git commit of the package's checkout and whether tracked files differ from it.

    Args:
        folder: inside the checkout; by default that of this package.

    Returns:
        `{"commit": hex or None, "dirty": bool or None}`; None where the package is not in a git checkout (an
        installed wheel) or git is not installed.
    """
    place = Path(__file__).parent if folder is None else Path(folder)
    commit = _git(place, "rev-parse", "HEAD")
    # A package inside somebody else's repository (site-packages in a project) is not that commit.
    if not commit or _git(place, "ls-files", "--error-unmatch", ".") is None:
        return {"commit": None, "dirty": None}
    status = _git(place, "status", "--porcelain", "--untracked-files=no", ":/")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def code_difference(folder: str | Path | None = None, *, limit: int = 200_000) -> str:
    """What tracked files of the package's checkout differ in from its commit, as a patch.

    Args:
        folder: inside the checkout; by default that of this package.
        limit: characters that are kept; a last line says what was cut.

    Returns:
        The patch; empty outside a git checkout, or where nothing differs.
    """
    place = Path(__file__).parent if folder is None else Path(folder)
    text = _git(place, "diff", "--no-ext-diff", "--no-color", "HEAD") or ""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n# {len(text) - limit} further characters are left out.\n"


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def package_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """{`python` and every installed one of `packages`: version}."""
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def processor_model() -> str:
    """The model of the CPU; `platform.processor()` is empty on most Linux systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def absolute_paths(text: str) -> list[str]:
    """Absolute paths in a text: they belong to one machine and have no place in a record.

    >>> absolute_paths("root = '/home/me/data/nyud', url = 'https://a.org/b', 12 images/s")
    ['/home/me/data/nyud']
    """
    return [found.group(0) for found in _ABSOLUTE.finditer(text)]


def without_paths(text: str) -> str:
    """The text with every absolute path reduced to `<path>/` and its last part.

    >>> without_paths("root = '/home/me/data/nyud'")
    "root = '<path>/nyud'"
    """
    return _ABSOLUTE.sub(
        lambda found: f"{NO_PATH}/" + re.split(r"[\\/]", found.group(0).rstrip("/"))[-1], text
    )


def config_entry(name: str, text: str) -> dict[str, str]:
    """The `config` field of a record.

    Args:
        name: of the config.
        text: the completed config, as Python text with one `key = value` per line.

    Returns:
        `name`; `text` without absolute paths; `sha256` of that text, so that a config has one hash on every
        machine. `row_sha256`, the same without the line `seed = N`, which the seeds of one table row share.
    """
    clean = without_paths(text)
    return {
        "name": name,
        "text": clean,
        "sha256": _sha256(clean),
        "row_sha256": _sha256(_SEED.sub("", clean)),
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def now() -> str:
    """The time in UTC, to the second, as records hold it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
