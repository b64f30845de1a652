"""Errors of worker processes and ranks, as the one line that their own process would have printed."""

from __future__ import annotations

import re
import signal

from mtvision.core.files.foreign import cause

_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.\n")
_ERROR = re.compile(r"^\S+?(?:: |$)", re.MULTILINE)
_KILLED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", re.DOTALL)
_POOL = re.compile(r"process in the process pool was terminated abruptly|process pool is not usable")
_RANK = re.compile(
    r"Connection (?:closed by peer|reset by peer|refused)|Broken pipe|gloo.*(?:[Tt]imed? ?out|aborted)"
    r"|NCCL (?:error|communicator)|remote process exited|Socket Timeout|wait timeout|TCPStore",
    re.DOTALL,
)


def original_message(error: Exception) -> str:
    """The message that an error had in the worker process it comes from; its own where it is of this process.

    torch passes the text of a worker's whole traceback on, whose last part is the error.
    """
    text = str(error)
    if _WORKER.match(text) is None:
        return text
    last_frame = text.rfind('\n  File "') + 1
    error_line = _ERROR.search(text, last_frame)
    if error_line is None:
        return text
    return text[error_line.end() :].strip() or error_line[0]


def lost_process(error: Exception) -> str | None:
    """One line on a process that is gone, with what to do; None if the error is about something else."""
    text = f"{type(error).__name__}: {error}"
    worker = lost_worker(text)
    if worker is not None:
        return f"{worker}."
    if _POOL.search(text):
        return (
            "a process that prepares data was killed; mostly the memory ran out. Repeat the command with "
            "fewer workers (--workers, or those of the config); it keeps what is done. A script of your own "
            "needs `if __name__ == '__main__':` around such a call."
        )
    if isinstance(error, RuntimeError) and _RANK.search(text):
        return (
            f"the connection to another rank is lost ({cause(error)}). That rank ended first: its own "
            "message says why. Start again, a training with --resume."
        )
    return None


def from_worker(error: Exception) -> bool:
    """Whether an error was raised in a worker process of a data loader."""
    return _WORKER.match(str(error)) is not None


def lost_worker(message: str) -> str | None:
    """What became of a killed process that loads data; None if torch's message is about something else.

    >>> print(lost_worker("DataLoader worker (pid 17) is killed by signal: Killed. "))
    the process that loads data (pid 17) was ended by signal 9 (Killed): most likely the memory was full. \
Try a smaller num_workers, or look at the job's limit
    """
    found = _KILLED.search(message)
    if found is None:
        return None
    pids, what = found.groups()
    number = next((item for item in signal.Signals if f": {signal.strsignal(item)}." in what), None)
    how = (
        what.strip().rstrip(".")
        if number is None
        else f"was ended by signal {number.value} ({_name(number)})"
    )
    causes = {
        "SIGKILL": "most likely the memory was full. Try a smaller num_workers, or look at the job's limit",
        "SIGBUS": "most likely shared memory (/dev/shm) was full. Enlarge it, or try a smaller num_workers",
        "SIGSEGV": "a decoder crashed. `mtvision check-dataset` finds damaged files",
    }
    cause = causes.get("SIGKILL" if number is None else number.name)
    return f"the process that loads data (pid {pids}) {how}" + (f": {cause}" if cause else "")


def _name(number: signal.Signals) -> str:
    return signal.strsignal(number) or number.name
