"""Tables inside documents, regenerated between two comments; a check finds numbers edited by hand.

```markdown
<!-- table: results/run_seed0.json --columns method semseg depth -->
…
<!-- end -->
```

What follows `table:` are the arguments of `mtvision table`.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Sequence

_BLOCK = re.compile(
    r"^<!-- table: (?P<arguments>.*?) -->\n(?P<body>.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL
)
_START = re.compile(r"^<!-- table:", re.MULTILINE)


def regenerate(text: str, make: Callable[[Sequence[str]], str], *, source: str = "document") -> str:
    """The document with every marked table made anew; everything else stays as it is.

    Args:
        text: of the document.
        make: from the arguments after `table:` to the table.
        source: named in errors, e.g. the file.

    Raises:
        ValueError: a table has no end, or holds the start of another one.
    """
    blocks = list(_BLOCK.finditer(text))
    nested = [block for block in blocks if _START.search(block["body"])]
    if nested or len(blocks) != len(_START.findall(text)):
        raise ValueError(
            f"{source}: a '<!-- table: … -->' has no '<!-- end -->' of its own; both stand alone on their "
            "lines."
        )
    return _BLOCK.sub(
        lambda block: (
            f"<!-- table: {block['arguments']} -->\n\n{make(shlex.split(block['arguments']))}\n\n<!-- end -->"
        ),
        text,
    )


def count_tables(text: str) -> int:
    """How many marked tables a document has."""
    return len(_START.findall(text))


def difference(old: str, new: str, source: str) -> str:
    """Changes that regenerating would make, as a unified diff; empty if none."""
    lines = difflib.unified_diff(
        old.splitlines(),
        new.splitlines(),
        f"{source} (as it is)",
        f"{source} (from the records)",
        lineterm="",
        n=1,
    )
    return "\n".join(lines)
