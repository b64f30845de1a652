"""`python -m mutation`: sample changes, run the tests that reach each, print what survives."""

from __future__ import annotations

import argparse
import itertools
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutation.candidates import Candidate, candidates, mutated
from mutation.judge import Judge
from mutation.reach import Reach, digest, merge, record
from mutation.sample import sample
from mutation.session import Result, Session, changed_lines, code_digest, read_equivalents
from mutation.summary import markdown
from mutation.tree import Tree, copy_repository

ROOT = Path(__file__).parents[3]
PACKAGE = "mtvision"
PARTS = (
    "balance", "engine", "evaluation", "losses", "metrics", "procedures", "recipe", "runtime", "search",
    "steps",
)  # fmt: skip
FOLDER = ROOT / "work_dirs" / "mutation"
EQUIVALENT = Path("tests") / "mutation_equivalent.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        # One copy at the start: whoever edits the repository meanwhile changes nothing here.
        root = copy_repository(ROOT, Path(name))
        sources = read_sources(root)
        chosen = [
            pair
            for pair in draw(sources, options.size, options.seed)
            if any(text in f"{pair[0].module}:{pair[1].id}" for text in options.only)
        ]
        if options.list:
            for candidate, result in chosen:
                print(f"{result.id} {result.module}:{candidate.line} {candidate.operator}\n{result.diff()}")
            return 0
        session = Session(FOLDER / "results.jsonl")
        equivalents = read_equivalents(root / EQUIVALENT)
        if not options.report:
            reach = up_to_date(root, options.workers, options.refresh)
            known = {} if options.again else session.results
            same = {result.id for _, result in chosen if any(one.matches(result) for one in equivalents)}
            left = [pair for pair in chosen if pair[1].id not in known or pair[1].id not in same]
            judge = Judge(sources, reach, session, again=options.again)
            run(root, left, judge, options.workers, options.minutes)
        done = [session.results[one.id] for _, one in chosen if one.id in session.results]
        text = markdown(done, equivalents)
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "report.md").write_text(text)
        print(text)
        if len(done) < len(chosen):
            print(f"{len(chosen) - len(done)} of {len(chosen)} changes have no result yet.")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mutation", description=__doc__)
    parser.add_argument("--size", type=int, default=240, help="changes in the sample (240)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another sample (0)")
    parser.add_argument("--workers", type=int, default=2, help="copies of the repository at work (2)")
    parser.add_argument("--minutes", type=float, default=600, help="start no change after so many (600)")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="parts of module paths, or ids; the others are left alone"
    )
    parser.add_argument("--again", action="store_true", help="run changes again whose result is known")
    parser.add_argument(
        "--refresh", action="store_true", help="find out again which tests reach which line, all of them"
    )
    parser.add_argument("--report", action="store_true", help="only print the table of the results so far")
    parser.add_argument("--list", action="store_true", help="only print the sample")
    return parser.parse_args(arguments)


def read_sources(root: Path) -> dict[str, str]:
    """Text of each module of the packages that are sampled."""
    paths = [path for part in PARTS for path in sorted((root / PACKAGE / part).rglob("*.py"))]
    return {path.relative_to(root).as_posix(): path.read_text() for path in paths}


def draw(sources: Mapping[str, str], size: int, seed: int) -> list[tuple[Candidate, Result]]:
    """The sample, each change with a result that has no outcome yet."""
    found = {name: candidates(name, source) for name, source in sources.items()}
    texts: dict[str, str] = {}

    def valid(candidate: Candidate) -> bool:
        text = mutated(candidate, sources[candidate.module])
        texts[candidate.id] = text or ""
        return text is not None

    pairs = []
    for one in sample(found, size, seed, valid):
        source = sources[one.module]
        before, after = changed_lines(source, texts[one.id])
        result = Result(one.id, one.module, one.line, one.operator, before, after, code_digest(source))
        pairs.append((one, result))
    return pairs


def up_to_date(root: Path, workers: int, refresh: bool) -> Reach:
    """What reaches what; test files that are new or changed run under coverage first.

    Folders run one after another, those named like a sampled package first. Each is saved when it is done.
    """
    path = FOLDER / "reach.json.gz"
    files = sorted((root / "tests").rglob("test_*.py"))
    today = {file.relative_to(root).as_posix(): digest(file) for file in files}
    reach = Reach() if refresh else Reach.load(path)
    reach.forget(set(reach.digests) - set(today))
    stale = [name for name, value in today.items() if reach.digests.get(name) != value]
    if stale:
        print(f"{len(stale)} of {len(today)} test files run under coverage …", file=sys.stderr)
    folders: dict[str, list[str]] = {}
    for name in stale:
        folders.setdefault(name.split("/")[1], []).append(name)
    reach.forget(stale)
    for _, names in sorted(folders.items(), key=lambda one: (one[0] not in PARTS, one[0])):
        reach = merge(reach, record(root, PACKAGE, names, workers))
        reach.save(path)
    return reach


def run(
    root: Path,
    pairs: Sequence[tuple[Candidate, Result]],
    judge: Judge,
    workers: int,
    minutes: float = 600,
) -> None:
    """Judge each change in one of the copies of the repository; results go to the session at once.

    No change is started after `minutes`.
    """
    end = time.monotonic() + 60 * minutes
    lock = threading.Lock()
    idle: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    done = itertools.count(1)

    def one(pair: tuple[Candidate, Result]) -> None:
        tree = idle.get()
        try:
            found = judge(*pair, tree) if time.monotonic() < end else None
        finally:
            idle.put(tree)
        number = next(done)
        if found is not None:
            with lock:
                judge.session.add(found)
                print(f"[{number}/{len(pairs)}] {found.outcome:9} {found.module}:{found.line}", end="  ")
                print(f"{found.by or found.after}  {found.seconds:.1f} s", flush=True)

    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        trees = []
        for number in range(workers):
            folder = Path(name) / str(number)
            folder.mkdir()
            trees.append(Tree(root, folder))
            idle.put(trees[-1])
        try:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(one, pairs))
        finally:
            for tree in trees:
                tree.close()


if __name__ == "__main__":
    sys.exit(main())
