"""Processor, memory, GPUs, disks and limits of this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from mtvision.procedures.doctor.check import Check
from mtvision.report.provenance import package_versions, processor_model
from mtvision.runtime.atomic import require_writable

GIB = 1024**3
SMALL_MEMORY, SMALL_DISK, SMALL_SHARED = 8 * GIB, 5 * GIB, 1 * GIB
FEW_FILES = 1024
"""Open files that a process should be allowed: every loader worker needs some dozen."""


def machine(work_dir: Path) -> Iterator[Check]:
    """Checks of the machine.

    Args:
        work_dir: where runs are going to be written.
    """
    versions = package_versions()
    yield Check(
        "versions", "ok", ", ".join(f"{name} {text}" for name, text in versions.items()), "", versions
    )
    yield _processor()
    yield _memory()
    yield from _gpus()
    yield _disk("work dir", work_dir)
    yield _disk("temporary files", Path(tempfile.gettempdir()))
    yield from _shared_memory(Path("/dev/shm"))
    yield from _open_files()


def _processor() -> Check:
    """Model, instruction set, and the cores that this process may use."""
    usable = usable_cores()
    there = os.cpu_count() or usable
    facts = {
        "model": processor_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": there,
        "usable_cores": usable,
    }
    text = f"{facts['model']}, {facts['instructions']}, {usable} of {there} cores"
    if usable < there:
        return Check("processor", "note", text, "More workers than usable cores make a loader slower.", facts)
    return Check("processor", "ok", text, "", facts)


def usable_cores() -> int:
    """Cores that this process may run on; fewer than there are in many containers and batch jobs."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        return os.cpu_count() or 1


def _memory() -> Check:
    """Of the machine, or of the container where that has less."""
    total = _limit_of_container() or _physical()
    if total is None:
        return Check("memory", "note", "unknown on this system", "Watch the first steps of a run.")
    text, facts = f"{total / GIB:.1f} GiB", {"bytes": total}
    if total < SMALL_MEMORY:
        remedy = (
            "Small for full-size rows: lower batch_size, set training.micro_batches, or use num_workers=0."
        )
        return Check("memory", "note", text, remedy, facts)
    return Check("memory", "ok", text, "", facts)


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not on Windows
        return None


def _limit_of_container(file: Path = Path("/sys/fs/cgroup/memory.max")) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    physical = _physical()
    return int(text) if text.isdigit() and (physical is None or int(text) < physical) else None


def _gpus() -> Iterator[Check]:
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            facts = {"name": found.name, "bytes": found.total_memory}
            yield Check(f"GPU {index}", "ok", f"{found.name}, {found.total_memory / GIB:.0f} GiB", "", facts)
        return
    if shutil.which("nvidia-smi"):
        text = f"there is a driver (nvidia-smi), but torch {torch.__version__} sees no GPU"
        remedy = "Install a build of torch for this driver, or look at CUDA_VISIBLE_DEVICES."
        yield Check("GPU", "problem", text, remedy)
    else:
        yield Check(
            "GPU", "note", "none; training runs on the processor", "Tiny rows train in minutes there."
        )


def _disk(name: str, folder: Path) -> Check:
    place = folder.absolute()
    try:
        require_writable(place)
        existing = next(path for path in (place, *place.parents) if path.is_dir())
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check(name, "problem", f"{place}: {error}", "Choose another folder with --work-dir or TMPDIR.")
    text, facts = f"{place}, {free / GIB:.0f} GiB free", {"folder": str(place), "free": free}
    if free < SMALL_DISK:
        return Check(name, "note", text, "A checkpoint of a large network takes several GiB.", facts)
    return Check(name, "ok", text, "", facts)


def _shared_memory(folder: Path) -> Iterator[Check]:
    """Where loader workers put batches; containers give 64 MiB by default."""
    if not folder.is_dir():
        return
    size = shutil.disk_usage(folder).total
    text, facts = f"{size / GIB:.2f} GiB", {"bytes": size}
    if size < SMALL_SHARED:
        remedy = "Workers die with a bus error when it is full: docker run --shm-size=8g, or num_workers=0."
        yield Check("shared memory", "problem", text, remedy, facts)
    else:
        yield Check("shared memory", "ok", text, "", facts)


def _open_files() -> Iterator[Check]:
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    facts = {"limit": soft}
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        remedy = "Raise it with `ulimit -n 4096`; loader workers open many."
        yield Check("open files", "note", f"at most {soft}", remedy, facts)
    else:
        yield Check("open files", "ok", f"at most {soft}" if soft > 0 else "no limit", "", facts)
