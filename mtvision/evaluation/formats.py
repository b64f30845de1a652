"""How predictions may be stored; see `mtvision.evaluation.prediction_files`."""

from __future__ import annotations

from typing import Literal, get_args

Format = Literal["exact", "8bit"]
FORMATS: tuple[Format, ...] = get_args(Format)
