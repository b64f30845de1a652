"""The watch over the processes of a run: who is lost, who lags, what is passed on. No process is started."""

from __future__ import annotations

import signal

import pytest
import torch.distributed as dist

from mtvision.runtime import heartbeat
from mtvision.runtime.heartbeat import (
    CERTAIN,
    ELSEWHERE,
    SILENCE,
    STAGES,
    Heartbeat,
    LostProcessError,
    causes_named,
    note,
    wait_at_most,
)
from mtvision.runtime.lost import lost_worker
from mtvision.runtime.signals import REQUEUE, EndRequest, TrainingPausedError, listening

fault = pytest.mark.fault


class Clock:
    """Seconds that a test moves."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def three(clock):
    store = dist.HashStore()
    return [Heartbeat(store, rank, 3, clock) for rank in range(3)]


def beat(members):
    return [member.exchange() for member in members]


@fault("a rank killed, or a machine cut off", expected="the others stop within a minute; one line names it")
def test_a_silent_process_is_named_to_all(three, clock):
    for member in three:
        member.at(120, STAGES[1])
    for _ in range(3):
        clock.now += 1
        assert beat(three) == [None] * 3
    alive = three[:1] + three[2:]  # rank 1 is gone; rank 0 is its neighbour
    found = []
    while not any(found):
        clock.now += 1
        assert clock.now < 60
        found = beat(alive)
    assert clock.now > SILENCE
    assert found[0].startswith("rank 1 (")
    assert "was last heard at step 120 (in the step), 46 s ago" in found[0]
    assert beat(alive) == [found[0]] * 2


def test_a_process_that_has_ended_is_not_missed(three, clock):
    beat(three)
    with three[1]:
        pass
    clock.now += 2 * SILENCE
    assert beat([three[0]]) == [None]


@fault("a rank that fails alone", expected="the others stop and say its error")
def test_an_error_of_one_process_is_told_to_the_others(three):
    three[1].at(7, STAGES[0])
    with pytest.raises(OSError, match="gone"), three[1]:
        raise OSError("the disk is gone\nand more")
    (text,) = beat(three[:1])
    assert "rank 1 (" in text
    assert text.endswith("ended at step 7 (reading data): OSError: the disk is gone")


def test_an_end_on_request_is_no_error(three):
    with pytest.raises(TrainingPausedError), three[1]:
        raise TrainingPausedError("stopped by signal 15")
    assert beat(three[:1]) == [None]


@fault(
    "a collective that never ends", expected="after training.stuck_minutes one line names the rank that lags"
)
def test_the_process_that_lags_is_named(three, clock):
    for member in three:
        member.at(5, STAGES[1])
        member.patience = 600
    three[2].at(5, STAGES[0])
    for _ in range(60):
        clock.now += 10
        assert beat(three) == [None] * 3
    clock.now += 10
    found = beat(three[:1])[0]
    assert found.startswith("no progress for 10.2 min: rank 2 (")
    assert "at step 5 (reading data) lags; the others wait for it" in found


def test_work_outside_the_loop_has_no_time_limit(three, clock):
    three[0].patience = 600
    three[0].at(5, STAGES[2])
    three[0].at(5, ELSEWHERE)
    clock.now += 6000
    assert three[0].exchange() is None


@fault("a signal that reaches one of several ranks", expected="all ranks take it as theirs")
def test_a_request_is_passed_on(three, monkeypatch):
    requests = [EndRequest() for _ in three]
    requests[0].ask("signal 10 (SIGUSR1)", REQUEUE)
    for member, request in zip(three, requests, strict=True):
        monkeypatch.setattr(heartbeat, "end_request", lambda request=request: request)
        member.exchange()
    assert [request.code for request in requests] == [REQUEUE] * 3
    assert requests[2].reason == "signal 10 (SIGUSR1) at another process"


def test_a_broken_collective_becomes_one_line(monkeypatch):
    monkeypatch.setattr(heartbeat, "CERTAIN", 0.1)
    store = dist.HashStore()
    other = Heartbeat(store, 1, 2)
    other.at(3, STAGES[1])
    other.exchange()

    def fail():
        with Heartbeat(store, 0, 2) as own, causes_named():
            note(3, STAGES[1])
            wait_at_most(7)
            assert own.patience == 420
            raise RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:4711")

    with pytest.raises(LostProcessError, match=r"rank 1 \(.*last heard at step 3.*--resume continues"):
        fail()
    assert CERTAIN < 10, "launchers kill what has not ended some seconds after the first failure"


def test_a_process_is_known_before_its_first_beat(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT", 100.0)
    store = dist.HashStore()
    with Heartbeat(store, 1, 2):
        assert store.check(["beat/1"])


def test_a_process_that_was_never_heard_is_named(monkeypatch):
    monkeypatch.setattr(heartbeat, "CERTAIN", 0.1)
    monkeypatch.setattr(heartbeat, "BEAT", 0.1)
    store = dist.HashStore()
    Heartbeat(store, 1, 3).exchange()
    store.set("beat/1", '{"host": "a", "pid": 1, "step": 0, "stage": "ended", "count": 1}')
    with (
        pytest.raises(LostProcessError, match="rank 2 was never heard. It ended or was killed while"),
        Heartbeat(store, 0, 3),
        causes_named(),
    ):
        raise RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:4711")


@fault("SIGTERM of a launcher that lost a rank", expected="the others name the rank, not the signal")
def test_a_signal_does_not_hide_the_cause(monkeypatch):
    monkeypatch.setattr(heartbeat, "CERTAIN", 0.1)
    store = dist.HashStore()
    Heartbeat(store, 1, 2).exchange()

    def fail(peer_ended):
        if peer_ended:
            store.set("beat/1", '{"host": "a", "pid": 1, "step": 0, "stage": "ended", "count": 1}')
        with listening(), Heartbeat(store, 0, 2) as own, causes_named():
            cause = own.cause
            monkeypatch.setattr(own, "cause", lambda: signal.raise_signal(signal.SIGTERM) or cause())
            raise RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:4711")

    monkeypatch.setattr(heartbeat, "BEAT", 0.1)
    with pytest.raises(TrainingPausedError, match="SIGTERM"):
        fail(peer_ended=True)
    Heartbeat(store, 1, 2).exchange()
    with pytest.raises(LostProcessError, match=r"rank 1 \(.*was last heard"):
        fail(peer_ended=False)


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="^shapes differ$"), causes_named():
        raise RuntimeError("shapes differ")
    with pytest.raises(TrainingPausedError), causes_named(), listening():
        signal.raise_signal(signal.SIGTERM)


def test_a_connection_that_breaks_with_a_worker_is_the_workers_end():
    def of_torch(*_):
        raise RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed. ")

    def fail():
        with causes_named():
            raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ConnectionResetError):
        fail()
    before = signal.signal(signal.SIGCHLD, of_torch)
    try:
        with pytest.raises(LostProcessError, match=r"\(pid 17\) was ended by signal 9"):
            fail()
    finally:
        signal.signal(signal.SIGCHLD, before)


WORKERS = {
    "is killed by signal: Killed. ": "ended by signal 9 (Killed): most likely the memory was full",
    "is killed by signal: Bus error. It is possible": "signal 7 (Bus error): most likely shared memory",
    "is killed by signal: Segmentation fault. ": "signal 11 (Segmentation fault): a decoder crashed",
    "exited unexpectedly": "exited unexpectedly: most likely the memory was full",
}


@fault("a data-loading worker killed", expected="one line with its pid, the signal and the likely cause")
@pytest.mark.parametrize("what", WORKERS)
def test_a_killed_worker_is_named_with_its_likely_cause(what):
    with pytest.raises(LostProcessError) as caught, causes_named():
        raise RuntimeError(f"DataLoader worker (pid 17) {what}")
    assert str(caught.value).startswith("the process that loads data (pid 17) ")
    assert WORKERS[what] in str(caught.value)
    assert lost_worker("DataLoader has 2 workers") is None
