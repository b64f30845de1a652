"""What a run says: on the terminal, and in `train.log` of its work dir."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.text import Text

LOG_FILE = "train.log"
_log = logging.getLogger("mtvision")


class Journal(logging.Handler):
    """Prints lines and appends them to a file, together with what the package logs; a context.

    A file that cannot be written any more is said once and left alone; the run continues.

    Args:
        console: of the terminal.
        folder: receives the file; None = there is none, e.g. on all processes but the first.
    """

    def __init__(self, console: Console, folder: Path | None) -> None:
        super().__init__()
        self.console = console
        self._path = None if folder is None else folder / LOG_FILE

    def say(self, text: str) -> None:
        """Print a line, which may hold rich's markup, and keep it."""
        self.console.print(text, soft_wrap=True)
        self.keep(Text.from_markup(text).plain)

    def keep(self, text: str) -> None:
        """Append a line to the file, with the time."""
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}  {text}\n")
        except OSError as error:
            path, self._path = self._path, None
            self.console.print(f"{path.name} is not written any more: {error.strerror}", markup=False)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what the package logs; print it too where no other handler does."""
        self.keep(record.getMessage())
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and not logging.getLogger().handlers:
            last.handle(record)

    def __enter__(self) -> Journal:
        if self._path is not None:
            _log.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        _log.removeHandler(self)
        if kind is not None:
            self.keep(f"ended by {kind.__name__}: {error}")
