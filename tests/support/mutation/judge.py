"""Decides one change: which tests still have to run, and what their outcome means."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from mutation.candidates import Candidate, mutated
from mutation.plan import chunks
from mutation.reach import Reach, file_of
from mutation.session import Result, Session


class Runner(Protocol):
    """What a judge needs of `mutation.tree.Tree`."""

    def run(
        self,
        chunks: Sequence[Sequence[str]],
        seconds: Mapping[str, float],
        change: tuple[str, str] | None = None,
    ) -> dict[str, object]:
        """Run tests until one fails."""


class Judge:
    """Runs what is left of the tests of a change.

    A test that fails must pass on the unchanged code, else it proves nothing and is left out from then on.

    Args:
        sources: text of each module without a change.
        reach: which tests reach which line.
        session: earlier results.
        again: whether to run everything, whatever is known.
    """

    def __init__(
        self, sources: Mapping[str, str], reach: Reach, session: Session, *, again: bool = False
    ) -> None:
        self.sources = sources
        self.reach = reach
        self.session = session
        self.again = again
        self.seconds = {name: test.seconds for name, test in reach.tests.items()}
        self.reliable: set[str] = set()
        self.unreliable: set[str] = set()

    def __call__(self, candidate: Candidate, result: Result, tree: Runner) -> Result | None:
        """The result, or None if the one in the session still holds."""
        source = self.sources[candidate.module]
        names = self.reach.tests_of(candidate.module, source, candidate.line)
        files = {file_of(name): self.reach.digests[file_of(name)] for name in names}
        known = None if self.again else self.session.known(result, files)
        if known is not None and (known.outcome == "killed" or known.passed == files):
            return None
        if not names:
            result.outcome = "unreached"
            return result
        passed = known.passed if known is not None else {}
        left = [name for name in names if passed.get(file_of(name)) != files[file_of(name)]]
        text = mutated(candidate, source)
        assert text is not None, "the sample holds valid changes only"
        return self._decide(result, left, files, text, tree)

    def _decide(
        self, result: Result, names: Sequence[str], files: dict[str, str], text: str, tree: Runner
    ) -> Result:
        tests = self.reach.tests
        while True:
            left = [name for name in names if name not in self.unreliable]
            answer = tree.run(chunks(left, tests, result.module), self.seconds, (result.module, text))
            result.seconds += float(str(answer["seconds"]))
            if answer["outcome"] == "passed":
                result.outcome, result.passed = "survived", files
                return result
            if self._stands(str(answer["by"]), left, tree):
                break
        result.outcome, result.by = "killed", str(answer["by"])
        result.reason = str(answer.get("reason", answer["outcome"]))
        culprits = [tests[name] for name in left if result.by in (name, file_of(name))]
        result.slow = bool(culprits) and all(test.slow for test in culprits)
        name = file_of(result.by)
        result.passed = {name: files[name]} if name in files else {}
        return result

    def _stands(self, name: str, names: Sequence[str], tree: Runner) -> bool:
        """Whether what failed passes without the change."""
        again = [one for one in names if name in (one, file_of(one))][:1]
        if not again or again[0] in self.reliable:
            return True
        if tree.run([again], self.seconds)["outcome"] == "passed":
            self.reliable.add(again[0])
            return True
        self.unreliable.add(again[0])
        print(f"fails on the unchanged code, left out: {again[0]}", file=sys.stderr)
        return False
