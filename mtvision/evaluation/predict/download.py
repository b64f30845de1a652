"""A picture or video behind an http(s) address, as a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

MAX_BYTES = 512 * 2**20
TIMEOUT = 30.0
"""Seconds without any byte."""
_CHUNK = 2**20


class DownloadError(OSError):
    """An address that gives no whole file; the message names it and the cause."""


@contextmanager
def downloaded(
    address: str, suffix: str, *, limit: int = MAX_BYTES, timeout: float = TIMEOUT
) -> Iterator[Path]:
    """The file behind an address, for as long as the block runs.

    Args:
        address: http or https.
        suffix: ending of the temporary file.
        limit: most bytes.
        timeout: seconds without any byte.

    Raises:
        DownloadError: no network, no such host or page, too large, or cut off.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"download{suffix}"
        try:
            _fetch(address, path, limit, timeout)
        except HTTPError as error:
            raise DownloadError(f"{address}: the server answers {error.code} {error.reason}.") from error
        except URLError as error:
            raise DownloadError(
                f"{address}: cannot be reached ({error.reason}). Check the address and the network."
            ) from error
        except DownloadError:
            raise
        except (OSError, ValueError, HTTPException) as error:
            raise DownloadError(f"{address}: the download broke off ({error}). Try it again.") from error
        yield path


def _fetch(address: str, temporary: Path, limit: int, timeout: float) -> None:
    request = Request(address, headers={"User-Agent": "mtvision"})
    with urlopen(request, timeout=timeout) as answer, temporary.open("wb") as file:
        if urlsplit(answer.geturl()).scheme not in ("http", "https"):
            raise DownloadError(f"{address}: leads to {answer.geturl()}; expected http or https.")
        stated = int(answer.headers.get("Content-Length") or -1)
        done = 0
        while chunk := answer.read(_CHUNK):
            done += len(chunk)
            if max(done, stated) > limit:
                raise DownloadError(
                    f"{address}: larger than {limit / 2**20:.0f} MiB. Download it yourself and give the file."
                )
            file.write(chunk)
        if done < stated:
            raise DownloadError(f"{address}: {done} of {stated} bytes arrived. Try it again.")
