"""A temporary environment in which mtvision is a wheel, as `pip install mtvision` leaves it; no network."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build_wheel(folder: Path) -> Path:
    """A wheel of this checkout in a folder; the test is skipped where hatchling is not installed."""
    builders = pytest.importorskip("hatchling.builders.wheel", reason="`pip install hatchling`")
    return Path(next(builders.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


class Environment:
    """A virtual environment that finds the packages of this one, but not this checkout.

    Args:
        folder: where it is made.
        packages: wheels and folders of projects to install.
    """

    def __init__(self, folder: Path, *packages: Path) -> None:
        pytest.importorskip("pip", reason="this environment has no pip")
        venv.create(folder, symlinks=os.name != "nt")
        self.scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.scripts / "python"
        (site,) = folder.glob("[Ll]ib/**/site-packages")
        # Files like this one in the folder that it names are not read; so editable installs are not found.
        (site / "parent.pth").write_text(sysconfig.get_path("purelib"))
        options = ["--no-index", "--no-deps", "--no-build-isolation", "--no-compile", "--ignore-installed"]
        pip = [sys.executable, "-m", "pip", "--python", self.python, "--quiet", "install", *options]
        done = self._run(*pip, *packages, cwd=folder)
        assert done.returncode == 0, done.stderr

    def run(self, script: str, *arguments: object, cwd: Path) -> str:
        """What a script of the environment, e.g. `mtvision`, prints in a folder; it must succeed."""
        done = self._run(self.scripts / script, *arguments, cwd=cwd)
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def _run(self, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            env=environment | {"OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
