"""Which of the data sets that shipped configs name are here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtvision.procedures.doctor.check import Check, tried
from mtvision.recipe.config import load_config
from mtvision.recipe.data import build_dataset
from mtvision.recipe.sections import DATA_SECTIONS
from mtvision.recipe.settings import protocol_of
from mtvision.recipe.shipped import configs_folder


def data_sets() -> Iterator[Check]:
    """One check for each root folder of the shipped data sets, relative to the current folder."""
    named: dict[str, list[Path]] = {}
    for path in sorted((configs_folder() / "_base_" / "datasets").glob("*.py")):
        for root in _roots(load_config(path)):
            named.setdefault(root, []).append(path)
    for root, paths in named.items():
        if Path(root).is_dir():
            for path in paths:
                yield from tried(
                    f"{root} ({path.stem})",
                    lambda path=path, root=root: _opened(root, path),  # type: ignore[misc]
                    "`mtvision check-dataset` says more.",
                )
        else:
            yield Check(root, "note", "not here", "The pages in datasets/ say where it comes from.")


def _roots(config: Mapping[str, Any]) -> list[str]:
    entries = [config[section]["dataset"] for section in DATA_SECTIONS if config[section]]
    return list(dict.fromkeys(entry["root"] for entry in entries if "root" in entry))


def _opened(root: str, path: Path) -> Iterator[Check]:
    """List a set's images, and read the first of each section."""
    config = load_config(path)
    counts = {}
    for section in DATA_SECTIONS:
        if config[section]:
            dataset = build_dataset(section, config[section], protocol_of(config), seed=0)
            dataset.validate(0, dataset.read(0))
            counts[f"{section} ({dataset.split})"] = len(dataset)
    text = ", ".join(f"{name}: {count:,} images" for name, count in counts.items())
    yield Check(f"{root} ({path.stem})", "ok", text, "", counts)
