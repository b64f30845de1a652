"""What a command imports before it has something to do; modules are counted, not seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mtvision.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
HEAVY = (
    *(
        "torch",
        "torchvision",
        "timm",
        "mmengine",
        "numpy",
        "scipy",
        "cv2",
        "albumentations",
        "PIL",
        "skimage",
    ),
    *("matplotlib", "pycocotools", "h5py", "torchjd", "wandb", "tensorboard", "jinja2", "safetensors"),
)


def run(code, *forbidden):
    """Run code in a fresh process and refuse the imports; returns the process."""
    guard = f"\nimport sys; print([name for name in {forbidden} if name in sys.modules], file=sys.stderr)"
    return subprocess.run(
        [sys.executable, "-c", code + guard], capture_output=True, text=True, check=False, cwd=ROOT
    )


def imported(done):
    """The forbidden modules that a process imported."""
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    code = (
        "from mtvision.cli.main import command_line\n"
        f"try: command_line(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
    )
    done = run(code, *HEAVY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: mtvision {command}")
    assert imported(done) == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", "results/tiny_synthetic", "--format", "markdown"],
        ["leaderboard", "check", "results"],
        ["leaderboard", "build", "results", "--out", "SITE"],
    ],
    ids=" ".join,
)
def test_tables_and_leaderboards_do_not_import_torch(arguments, tmp_path):
    arguments = [str(tmp_path) if item == "SITE" else item for item in arguments]
    done = run(
        f"from mtvision.cli.main import command_line; assert command_line({arguments}) == 0", "torch", "cv2"
    )
    assert done.returncode == 0, done.stderr
    assert imported(done) == "[]"


def test_a_backbone_is_imported_without_the_others():
    code = (
        "from mtvision.core.registry import BACKBONES; BACKBONES['TimmBackbone']; "
        "BACKBONES.build({'type': 'TimmBackbone', 'name': 'resnet10t'})"
    )
    others = [f"mtvision.models.backbones.{name}" for name in ("swin", "vim", "vmamba", "hrnet")]
    done = run(code, *others, "mmengine", "mtvision.ops")
    assert done.returncode == 0, done.stderr
    assert imported(done) == "[]"
