"""Requests to end a run: which signals, when, with which exit code."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from mtvision.runtime import signals
from mtvision.runtime.signals import (
    REQUEUE,
    SIGNALS,
    TrainingInterruptedError,
    TrainingPausedError,
    end_request,
    listening,
    seconds_allotted,
)

fault = pytest.mark.fault


@pytest.fixture(autouse=True)
def _no_scheduler(monkeypatch):
    for name in ("SLURM_JOB_END_TIME", "PBS_WALLTIME"):
        monkeypatch.delenv(name, raising=False)


def inside(work):
    """Call a function with the request of a block that listens."""
    with listening() as end:
        work(end)


@fault("a signal while data or network are built", expected="one line, exit code 75 (130 for SIGINT)")
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_outside_the_loop_ends_at_once_with_its_code(name):
    with (
        pytest.raises(TrainingInterruptedError, match=rf"\({name}\)\. No step is lost") as caught,
        listening(),
    ):
        signal.raise_signal(signal.Signals[name])
    assert caught.value.exit_code == SIGNALS[name]
    assert caught.value.exit_code == (130 if name == "SIGINT" else 75)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_between_steps_is_left_to_the_loop(name, capfd):
    def work(end):
        with end.between_steps():
            signal.raise_signal(signal.Signals[name])
            assert end.code == SIGNALS[name]

    with pytest.raises(TrainingInterruptedError, match=name):
        inside(work)
    assert "a checkpoint follows after this step" in capfd.readouterr().err


def test_handlers_are_given_back_and_the_inner_block_is_the_outer_one():
    before = [signal.getsignal(signal.Signals[name]) for name in SIGNALS]
    with listening() as outer, listening() as inner:
        assert inner is outer is end_request()
    assert [signal.getsignal(signal.Signals[name]) for name in SIGNALS] == before
    assert end_request().code == 0


@fault("SIGHUP of a closed terminal under nohup", expected="the run goes on")
def test_an_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening() as end:
            signal.raise_signal(signal.SIGHUP)
            assert end.reason is None
    finally:
        signal.signal(signal.SIGHUP, before)


@fault("a second signal", expected="the process ends at once, by that signal")
def test_a_second_signal_ends_the_process_unless_it_is_the_first_one_passed_on(monkeypatch):
    ended = []
    monkeypatch.setattr(signals, "_end_by", ended.append)

    def work(end):
        with end.between_steps():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # torchrun's, after the terminal's
            assert ended == []
            end._since -= 2 * signals.SAME_REQUEST
            signal.raise_signal(signal.SIGUSR1)

    with pytest.raises(TrainingPausedError):
        inside(work)
    assert ended == [signal.SIGUSR1]


def test_forked_workers_end_by_sigterm_alone(monkeypatch):
    ended = []
    monkeypatch.setattr(signals, "_end_by", ended.append)
    with listening() as end:
        end._process = os.getpid() + 1  # as seen by a worker, which is another process
        for name in SIGNALS:
            signal.raise_signal(signal.Signals[name])
        assert end.reason is None
    assert ended == [signal.SIGTERM]


def test_a_request_of_another_thread_is_no_second_signal(monkeypatch):
    ended = []
    monkeypatch.setattr(signals, "_end_by", ended.append)

    def work(end):
        thread = threading.Thread(target=end.ask_from_thread, args=("SIGUSR1 at rank 1", REQUEUE))
        thread.start()
        thread.join()
        time.sleep(1)  # the signal interrupts it

    with pytest.raises(TrainingPausedError, match="SIGUSR1 at rank 1"):
        inside(work)
    assert ended == []


@fault("the scheduler's time limit", expected="a checkpoint and exit code 75 before it")
def test_a_time_limit_is_a_request_when_another_step_may_not_fit():
    def work(end):
        with end.between_steps():
            end.look_at_the_clock(1e9)
            assert end.code == 0, "no limit, no request"
            end.limit(3600)
            end.limit(7200)
            assert 3590 < end.left() <= 3600, "the earliest holds"
            end.look_at_the_clock(1700)
            assert end.code == 0
            end.look_at_the_clock(1790)

    with pytest.raises(TrainingPausedError, match="the time limit"):
        inside(work)


def test_a_time_limit_outside_the_loop_stops_the_work():
    def work(end):
        end.limit(0.05)
        time.sleep(5)  # the timer interrupts it

    with pytest.raises(TrainingPausedError, match="the time limit"):
        inside(work)


def test_time_limits_of_schedulers():
    assert seconds_allotted({}) is None
    assert seconds_allotted({"PBS_WALLTIME": "3600"}) == 3600
    assert seconds_allotted({"SLURM_JOB_END_TIME": "soon"}) is None
    left = seconds_allotted({"SLURM_JOB_END_TIME": str(int(time.time()) + 100), "PBS_WALLTIME": "1"})
    assert 90 < left <= 100


def test_without_the_main_thread_signals_are_left_alone():
    seen = []

    def work():
        with listening() as end:
            end.ask_from_thread("the time limit", REQUEUE)
            seen.append((signal.getsignal(signal.SIGTERM), end.code))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, REQUEUE)]
