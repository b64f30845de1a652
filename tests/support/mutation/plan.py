"""In which order tests meet a change: cheap ones first, those marked as slow last, a few files at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mutation.reach import Cost, file_of

_BANDS = (
    0.5,
    2.0,
    8.0,
    30.0,
)  # seconds; within a band, tests of one file stand together and share its fixtures
_FILES = 4
_SECONDS = 10.0


def chunks(names: Sequence[str], tests: Mapping[str, Cost], module: str) -> list[list[str]]:
    """Groups of tests, each for one run of pytest. Tests of one file and band are never parted.

    Within a band the files named after the module or its package come first: they are the likeliest to fail.
    """
    place = {name: number for number, name in enumerate(names)}
    package, stem = module.split("/")[1], module.rsplit("/", 1)[-1].removesuffix(".py")

    def order(name: str) -> tuple[bool, int, bool, bool, str, int]:
        test, file = tests[name], file_of(name)
        band = sum(test.seconds > limit for limit in _BANDS)
        return test.slow, band, stem not in file, f"/{package}/" not in file, file, place[name]

    found: list[list[str]] = []
    kind: tuple[bool, int] | None = None
    seconds, files = 0.0, set()
    for name in sorted(names, key=order):
        slow, band, *_ = order(name)
        new_file = file_of(name) not in files
        if kind != (slow, band) or (new_file and (seconds > _SECONDS or len(files) == _FILES)):
            found.append([])
            kind, seconds, files = (slow, band), 0.0, set()
        found[-1].append(name)
        files.add(file_of(name))
        seconds += tests[name].seconds
    return found
