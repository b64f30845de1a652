"""Trees of tasks that share a backbone, as plain data; searches return them, branched encoders use them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtvision.core.files.json_file import read_json
from mtvision.core.naming import UnknownNameError

Group = tuple[str, ...]
Partition = tuple[Group, ...]


@dataclass(frozen=True)
class Tree:
    """A partition of the tasks for every level of a backbone, each a refinement of the one before.

    Args:
        levels: per level the groups of tasks that share it, first level first. Tasks that are apart once
            stay apart.
        blocks: number of the backbone's blocks in each level, in the order they run.

    Raises:
        ValueError: not one number of blocks per level, a level that is no partition of the tasks, or groups
            that merge again.
    """

    levels: tuple[Partition, ...]
    blocks: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.levels or len(self.levels) != len(self.blocks):
            raise ValueError(
                f"tree: {len(self.levels)} levels but {len(self.blocks)} numbers of blocks; give one each."
            )
        if min(self.blocks) < 0:
            raise ValueError(f"tree: numbers of blocks must not be negative, got {list(self.blocks)}.")
        expected = sorted(name for group in self.levels[0] for name in group)
        for index, partition in enumerate(self.levels):
            names = sorted(name for group in partition for name in group)
            if names != expected or len(set(names)) != len(names) or not all(partition):
                raise ValueError(
                    f"tree: level {index} is no partition of the tasks {', '.join(expected)}: {partition}."
                )
            for group in partition if index else ():
                if not any(set(group) <= set(before) for before in self.levels[index - 1]):
                    raise ValueError(
                        f"tree: level {index} merges {', '.join(group)} again, which were apart before. "
                        "Every group must lie inside one group of the level before."
                    )

    @classmethod
    def shared(cls, tasks: Sequence[str], blocks: Sequence[int]) -> Tree:
        """All tasks share everything."""
        return cls(((tuple(tasks),),) * len(blocks), tuple(blocks))

    @classmethod
    def separate(cls, tasks: Sequence[str], blocks: Sequence[int]) -> Tree:
        """No two tasks share anything."""
        return cls((tuple((name,) for name in tasks),) * len(blocks), tuple(blocks))

    @classmethod
    def from_paths(cls, paths: Mapping[str, Sequence[Hashable]], blocks: Sequence[int]) -> Tree:
        """Tasks share a level as long as their paths agree up to it.

        Args:
            paths: {task: what it chose at each level}.
            blocks: per level.
        """
        levels = []
        for level in range(len(blocks)):
            groups: dict[tuple[Hashable, ...], list[str]] = {}
            for name, path in paths.items():
                groups.setdefault(tuple(path[: level + 1]), []).append(name)
            levels.append(tuple(tuple(group) for group in groups.values()))
        return cls(tuple(levels), tuple(blocks))

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Tree:
        """Inverse of `to_plain`; also takes the content of an `architecture.json`.

        Raises:
            ValueError: keys are missing or the content is no tree.
            UnknownNameError: unknown keys.
        """
        value = value.get("tree", value)
        for key in value:
            if key not in ("levels", "blocks"):
                raise UnknownNameError("key of a tree", str(key), ("levels", "blocks"))
        if set(value) != {"levels", "blocks"}:
            raise ValueError(f"tree: expected the keys 'levels' and 'blocks', got {list(value)}.")
        levels = tuple(tuple(tuple(map(str, group)) for group in level) for level in value["levels"])
        return cls(levels, tuple(int(count) for count in value["blocks"]))

    @classmethod
    def load(cls, path: str | Path) -> Tree:
        """Read a tree, or the `architecture.json` of a branching search.

        Raises:
            FileNotFoundError: no such file; the message says how to get one.
            ValueError: it holds no tree.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(
                f"tree: {file} does not exist. Search one with `python tools/search.py configs/branching/…`, "
                "or write the tree into the config."
            )
        try:
            return cls.from_plain(read_json(file))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"tree: {file} holds no tree ({error}).") from error

    def to_plain(self) -> dict[str, Any]:
        """Lists and strings for JSON and configs."""
        return {
            "levels": [[list(group) for group in level] for level in self.levels],
            "blocks": list(self.blocks),
        }

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, sorted by the groups of the first level."""
        return tuple(name for group in self.levels[0] for name in group)

    def path(self, task: str) -> tuple[int, ...]:
        """Index of the task's group at each level.

        Raises:
            UnknownNameError: the tree has no such task.
        """
        if task not in self.tasks:
            raise UnknownNameError("task of the tree", task, self.tasks)
        return tuple(
            next(index for index, group in enumerate(level) if task in group) for level in self.levels
        )

    def cost(self, per_level: Sequence[float]) -> float:
        """Sum over levels of groups times what one costs (parameters, MACs)."""
        return sum(len(level) * cost for level, cost in zip(self.levels, per_level, strict=True))

    def draw(self) -> str:
        """The tree as text, one line per level.

        >>> print(Tree(((("a", "b", "c"),), (("a", "b"), ("c",))), (2, 1)).draw())
        level 0 (2 blocks)  [a b c]
        level 1 (1 block)   [a b] [c]
        """
        titles = [
            f"level {index} ({count} block{'' if count == 1 else 's'})"
            for index, count in enumerate(self.blocks)
        ]
        width = max(map(len, titles))
        lines = [
            f"{title:<{width}}  " + " ".join(f"[{' '.join(group)}]" for group in level)
            for title, level in zip(titles, self.levels, strict=True)
        ]
        return "\n".join(lines)
