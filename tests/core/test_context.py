"""Context: nesting, restoring, threads."""

import threading
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from mtvision.core.context import Context, current_context, use_context


def test_empty_outside():
    assert current_context() == Context()
    assert current_context().task is None


def test_nests_and_restores():
    outer, inner = Context(task="depth"), Context(temperature=0.5)
    with use_context(outer) as given:
        assert given is current_context() is outer
        with use_context(inner):
            assert current_context() is inner  # replaces, does not merge
            assert current_context().task is None
        assert current_context() is outer
    assert current_context() == Context()


def test_none_leaves_the_current_one():
    outer = Context(task="edge")
    with use_context(outer), use_context(None) as given:
        assert given is outer


def test_restored_after_an_error():
    with pytest.raises(RuntimeError), use_context(Context(task="depth")):
        raise RuntimeError
    assert current_context() == Context()


def test_threads_do_not_see_each_other():
    seen = []
    with use_context(Context(task="depth")):
        thread = threading.Thread(target=lambda: seen.append(current_context()))
        thread.start()
        thread.join()
    assert seen == [Context()]


def test_a_value():
    context = Context(preference={"depth": 1.0})
    with pytest.raises(FrozenInstanceError):
        context.task = "depth"
    assert replace(context, task="depth").preference == {"depth": 1.0}


@pytest.mark.slow
def test_a_compiled_function_follows_the_context():
    @torch.compile(backend="eager", fullgraph=True)
    def scaled(x):
        before = current_context().temperature or 1.0
        with use_context(replace(current_context(), temperature=2 * before)) as inner:
            return x * (inner.temperature or 0.0)

    assert float(scaled(torch.ones(1))) == 2
    with use_context(Context(temperature=3.0)) as outer:
        assert float(scaled(torch.ones(1))) == 6  # not the graph of the first call
        assert current_context() is outer
    assert float(scaled(torch.ones(1))) == 2
    assert current_context() == Context()
