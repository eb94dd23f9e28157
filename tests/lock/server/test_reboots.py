"""Holders whose machine was booted again: when a lock comes free for that, and when it must not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ipclocker.lock.server import holder_monitor
from ipclocker.pid.async_client import AsyncPidClient
from ipclocker.pid.protocol import PidAnswer
from ipclocker.process import relation
from ipclocker.process.viewpoint import HOST_PIDNS, HOST_TIMENS, View

from ...support.servers import Peer, ThreadServer
from ...support.waiting import wait_for
from .test_group_commit import FakeDisk

HERE = View("this-boot", HOST_PIDNS, HOST_TIMENS, "machine", "node7")
PLACE = f"pidns {HOST_PIDNS}; timens {HOST_TIMENS}; machine machine; hostname node7"
HOLDER = f"user ann; autounlock 1; pid 4711; start 5; boot the-boot-before; {PLACE}; locks x;"


class Questions:
    """The pid servers of all hosts: what they are asked, and `gone` as the answer to all if that is set."""

    def __init__(self) -> None:
        self.silences: list[float] = []
        self.gone: bool | None = None

    def ask(
        self, client: object, address: str, process: object, answered: object, within: float = 1.0, silent: float = -1.0
    ) -> None:
        self.silences.append(silent)
        answered(None if self.gone is None else PidAnswer(1, not self.gone, b""))  # type: ignore[operator]


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Questions:
    questions = Questions()
    monkeypatch.setattr(holder_monitor, "own_view", lambda: HERE)
    monkeypatch.setattr(AsyncPidClient, "ask", lambda *words, **named: questions.ask(*words, **named))
    up_for(monkeypatch, 1e9)
    return questions


def up_for(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let lockerd's own kernel be up for so long."""
    monkeypatch.setattr(relation, "_uptime", lambda: seconds)


def hold(server: ThreadServer) -> Peer:
    peer = server.connect()
    assert peer.ask(HOLDER + "LOCK")[1] == "locked 1"
    return peer


def test_what_was_held_here_before_this_boot_is_free(monkeypatch: pytest.MonkeyPatch, questions: Questions) -> None:
    with ThreadServer() as server:
        hold(server)
        wait_for(lambda: questions.silences, "a look")
        assert server.holders(), "this kernel was up beside the holder's"
        up_for(monkeypatch, 0.5)
        wait_for(lambda: not server.holders(), "the lock to be free")


def test_a_question_says_for_how_long_the_holder_was_silent(questions: Questions) -> None:
    with ThreadServer() as server:
        peer = hold(server)
        begun = time.monotonic()
        wait_for(lambda: questions.silences, "a look")
        assert 0 < questions.silences[-1] <= time.monotonic() - begun + 0.1
        token = server.ask("LOCK_INFO x")[0].split()[5]
        count = len(questions.silences)
        while len(questions.silences) == count:
            assert peer.ask(f"CHECK x {token}") == ["current 1"]
            time.sleep(0.01)
        assert questions.silences[-1] < 1.0, "it has just been heard of"
        peer.reset()
        lost = time.monotonic()
        count = len(questions.silences)
        wait_for(lambda: len(questions.silences) >= count + 2, "two looks more")
        assert questions.silences[-1] >= time.monotonic() - lost - 1.0 > 0.5


def test_a_word_of_another_address_about_the_token_is_no_sign_of_life(questions: Questions) -> None:
    with ThreadServer("0.0.0.0") as server:
        hold(server).reset()
        token = server.ask("LOCK_INFO x")[0].split()[5]
        wait_for(lambda: questions.silences, "a look")
        stranger = server.connect("127.0.0.2")
        count = len(questions.silences)
        while len(questions.silences) == count:
            assert stranger.ask(f"CHECK x {token}") == ["current 1"]
            time.sleep(0.01)
        assert questions.silences[-1] > 1.5


def test_when_a_client_was_lost_is_kept(questions: Questions) -> None:
    disk = FakeDisk()
    with ThreadServer(state=disk) as server:
        before = time.time()
        peer = hold(server)
        assert disk.grants[b"x"].heard is None, "it can be heard"
        wait_for(lambda: questions.silences, "a look")
        peer.reset()
        wait_for(lambda: disk.grants[b"x"].heard is not None, "the time to be kept")
        heard = disk.grants[b"x"].heard
        assert heard is not None and before - 0.1 <= heard <= time.time()
        assert server.connect().ask(HOLDER + "LOCK")[1] == "locked 1"  # over a connection that stays
        wait_for(lambda: disk.grants[b"x"].heard is None, "it to be heard of")


@pytest.mark.parametrize("seconds_down", [100, 0])
def test_after_a_restart_a_reboot_since_the_server_was_last_there_counts(
    monkeypatch: pytest.MonkeyPatch, questions: Questions, tmp_path: Path, seconds_down: int
) -> None:
    state = str(tmp_path / "s.db")
    with ThreadServer(state=state) as server:
        hold(server)
    ended = time.time() - seconds_down
    os.utime(state, (ended, ended))
    up_for(monkeypatch, 50.0)
    with ThreadServer(state=state) as server:
        if seconds_down:
            wait_for(lambda: not server.holders(), "the lock to be free")
        else:
            wait_for(lambda: questions.silences, "a look")
            assert server.holders() == {"x": "ann"}
