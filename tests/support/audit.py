"""`make audit`: licences of everything that is installed, known vulnerabilities, lowest declared versions.

python -m audit licences          which packages are GPL or LGPL, and which extra brings them
python -m audit vulnerabilities   by pip-audit, where a database can be reached
python -m audit lowest FILE       constraints: the lowest declared version of every direct requirement
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "mtvision"
NAMED = {"moocore": "search", "qpsolvers": "balancers", "quadprog": "balancers", "yattag": "mutation"}
"""Packages under GPL or LGPL, and the extra that brings each; docs/safety.md names them."""
BUNDLED = {"av": "FFmpeg with x264 (GPL) inside its wheels"}
"""Packages whose own licence says less than what their wheels hold."""
DEVELOPMENT = ("test", "mutation", "docs", "dev")
"""Extras whose packages stay at their newest versions: nobody needs old ones of them."""
COPYLEFT = re.compile(r"\b(A|L)?GPL|GNU", re.IGNORECASE)


def licence_of(package: metadata.Distribution) -> str:
    """As its metadata state it, in one line; empty where they do not."""
    fields = package.metadata
    stated = fields.get("License-Expression") or next(iter((fields.get("License") or "").splitlines()), "")
    kinds = [line for line in fields.get_all("Classifier") or [] if line.startswith("License")]
    return "; ".join([*([stated] if stated else []), *(line.split("::")[-1].strip() for line in kinds)])


def installed() -> dict[str, metadata.Distribution]:
    """{name: distribution}."""
    return {canonicalize_name(item.name): item for item in metadata.distributions()}


def extras_of(there: dict[str, metadata.Distribution]) -> dict[str, set[str]]:
    """{package: extras of ours that need it, directly or not; an empty text = always needed}."""
    found: dict[str, set[str]] = {}
    for extra in ("", *(there[OURS].metadata.get_all("Provides-Extra") or [])):
        todo, seen = [(OURS, extra)], set()
        while todo:
            package, asked = todo.pop()
            if package not in there or (package, asked) in seen:
                continue
            seen.add((package, asked))
            found.setdefault(package, set()).add(extra)
            for wanted in map(Requirement, there[package].requires or []):
                if wanted.marker is None or wanted.marker.evaluate({"extra": asked}):
                    todo += [(canonicalize_name(wanted.name), item) for item in ("", *wanted.extras)]
    return {package: {""} if "" in extras else extras for package, extras in found.items()}


def licences() -> int:
    """Print packages under GPL and LGPL, and those that state none; 1 where one is not in `NAMED`."""
    there = installed()
    extras = extras_of(there)
    unknown = 0
    for name, package in sorted(there.items()):
        text = licence_of(package)
        if COPYLEFT.search(text) or not text:
            by = ", ".join(sorted(item or "always" for item in extras.get(name, set()))) or "not ours"
            new = bool(text) and name in extras and name not in NAMED
            unknown += new
            print(f"{'NEW ' if new else ''}{name} {package.version}: {text or 'no licence stated'} ({by})")
    for name, text in BUNDLED.items():
        if name in there:
            print(f"{name} {there[name].version}: {text}")
    print(f"{len(there)} packages, {unknown} under GPL or LGPL that docs/safety.md does not name")
    return 1 if unknown else 0


def vulnerabilities() -> int:
    """What pip-audit finds; 0 with a line where no database can be reached."""
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off"],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout.strip())
    if done.returncode and "vulnerabilit" not in done.stdout + done.stderr:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"not looked up: no database of vulnerabilities can be reached from here ({reason[:160]})")
        return 0
    return done.returncode


def lowest(text: str, left_out: tuple[str, ...] = ("torch",)) -> Iterator[str]:
    """`name==version.*` of the lowest version of every direct requirement that declares one.

    Args:
        text: content of pyproject.toml.
        left_out: packages that stay as they are; another torch is a download of gigabytes.
    """
    import tomllib

    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], *(extras[name] for name in extras if name not in DEVELOPMENT)]
    seen: set[str] = set()
    for wanted in (Requirement(item) for group in groups for item in group):
        floors = [item.version for item in wanted.specifier if item.operator in (">=", "==", "~=")]
        if floors and wanted.name not in {*left_out, *seen, OURS}:
            seen.add(wanted.name)
            yield f"{wanted.name}=={floors[0]}.*"


def main() -> int:
    """Run one part; returns the exit code."""
    if sys.argv[1:2] == ["licences"]:
        return licences()
    if sys.argv[1:2] == ["vulnerabilities"]:
        return vulnerabilities()
    if sys.argv[1:2] == ["lowest"] and len(sys.argv) == 3:
        root = Path(__file__).resolve().parents[2]
        lines = list(lowest((root / "pyproject.toml").read_text()))
        Path(sys.argv[2]).write_text("\n".join(lines) + "\n")
        return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main())
