"""Runs of real clients against a real server, and what their diaries show: histories that are recorded and checked."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from ..support import PROJECT
from ..support.servers import Lockerd, Peer
from .history import GONE, LOCK, OBTAINED, UNLOCK, Recorder, by_names, check_tokens, note_kill, read_histories
from .linearizability import find_order
from .models import Locks, Queue

LONGEST_RUN = 120.0  # seconds; reached only when something is broken


class Checked(NamedTuple):
    """What there was to check."""

    operations: int
    grants: int


def check_locks(folder: Path) -> Checked:
    """The histories of this folder against the model of locks. Raises AssertionError."""
    operations = read_histories(folder)
    check_tokens(operations)
    for history in by_names(operations):
        find_order(history, Locks(), Locks.step)
    return _counted(operations)


def check_queue(folder: Path) -> Checked:
    """The histories of this folder, each of one name, against the model of a queue. Raises AssertionError."""
    operations = read_histories(folder)
    check_tokens(operations)
    for history in by_names(operations):
        find_order(history, Queue(), Queue.step)
    return _counted(operations)


def _counted(operations: Sequence[object]) -> Checked:
    granted = [operation for operation in operations if getattr(operation, "result", None)]
    return Checked(len(operations), sum(operation.result[0] == "granted" for operation in granted))  # type: ignore[attr-defined]


class Clients(NamedTuple):
    """How many there are: processes, clients in each, and operations of each client; for how many seconds most of them
    wait; how many operations break a lock or ask for its owner, as a part of them all; and the requests to choose from
    (clients.py)."""

    processes: int = 3
    clients: int = 2
    operations: int = 60
    patience: float = 5.0
    breaks: float = 0.02
    looks: float = 0.13
    requests: str = "x,y:z,z:y,y"  # x has a history of its own


class Where(NamedTuple):
    """Which server clients ask: hosts with colons between, a port; and the words that start a program among them."""

    port: str
    hosts: str = "127.0.0.1"
    before: tuple[str, ...] = ()


class Processes:
    """Processes of clients (clients.py), each with some threads."""

    def __init__(self, where: Where, folder: Path, dice: random.Random, kind: Clients) -> None:
        self._folder = folder
        self._running: dict[subprocess.Popen[bytes], list[str]] = {}
        for number in range(kind.processes):
            names = [f"c{number}{letter}" for letter in "abcdefgh"[: kind.clients]]
            seed = str(dice.randrange(10**6))
            parts = [str(kind.patience), str(kind.breaks), str(kind.looks)]
            words = [where.hosts, where.port, str(folder), seed, str(kind.operations), *parts, kind.requests, *names]
            command = [*where.before, sys.executable, "-m", "tests.proof.clients", *words]
            environment = {**os.environ, "PYTHONPATH": str(PROJECT)}  # what is before may change the folder
            self._running[subprocess.Popen(command, cwd=PROJECT, env=environment)] = names

    def kill(self, dice: random.Random) -> None:
        """Kill one of them."""
        process = dice.choice(list(self._running))
        for client in self._running.pop(process):
            for path in self._folder.glob(f"{client}*.history"):
                recorder = Recorder(self._folder, path.stem)
                recorder.gone()
                recorder.close()
        process.kill()
        process.wait()

    def await_lines(self, count: int) -> None:
        """Wait until the diaries have so many lines together."""
        deadline = time.monotonic() + LONGEST_RUN
        while self._lines() < count:
            assert time.monotonic() < deadline, "the clients do nothing"
            assert not any(process.poll() for process in self._running), "a client has failed"
            time.sleep(0.002)

    def _lines(self) -> int:
        return sum(path.read_bytes().count(b"\n") for path in self._folder.glob("*.history"))

    def run(self) -> bool:
        """Whether one of them still does."""
        return any(process.poll() is None for process in self._running)

    def end(self) -> None:
        """Wait for their ends, which are good ones. Raises AssertionError."""
        try:
            for process in self._running:
                assert process.wait(LONGEST_RUN) == 0, "a client has failed"
        finally:
            for process in self._running:
                process.kill()
                process.wait()


def record_lockers(
    where: Where,
    folder: Path,
    dice: random.Random,
    kind: Clients = Clients(),  # noqa: B008 - it can't be changed
    disturb: Callable[[Processes], None] = lambda processes: None,
) -> Checked:
    """Let Lockers in several processes lock and unlock, disturb them, and check what they saw."""
    running = Processes(where, folder, dice, kind)
    try:
        disturb(running)
    finally:
        running.end()
    return check_locks(folder)


def over_restarts(folder: Path, dice: random.Random, restarts: int, before: str = "") -> Checked:
    """Lockers whose server is killed and started again, on the same port and with the same state.

    No lock is broken: whether it was is not known to a client whose UNLOCK had no answer and was sent again. And each
    name has a history of its own, since of much it is not known whether it has happened.
    """
    diaries = folder / "diaries"
    diaries.mkdir()
    state = ["--state", str(folder / "state")]
    servers = [Lockerd(*state, before=before)]

    def restart(processes: Processes) -> None:
        lines = 0
        for _ in range(restarts):
            lines += dice.randrange(60, 120)
            processes.await_lines(lines)
            note_kill(diaries)
            servers[-1].kill()
            servers.append(Lockerd(*state, port=servers[0].port, before=before))

    try:
        kind = Clients(breaks=0.0, requests="x,y,z")
        return record_lockers(Where(str(servers[0].port)), diaries, dice, kind, restart)
    finally:
        servers[-1].kill()


def record_queue(address: str, folder: Path, dice: random.Random, *, clients: int = 6, rounds: int = 15) -> Checked:
    """Let bare connections queue for one name, some of which leave while they wait, and check their order."""
    problems: list[BaseException] = []

    def live(client: str, own_dice: random.Random) -> None:
        recorder = Recorder(folder, client)
        try:
            for _ in range(rounds):
                _queue_once(address, recorder, own_dice)
        except BaseException as problem:  # noqa: BLE001 - raised in the thread of the test
            problems.append(problem)
        finally:
            recorder.close()

    threads = [
        threading.Thread(target=live, args=(f"q{number}", random.Random(dice.random())), daemon=True)
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST_RUN)
    if problems:
        raise problems[0]
    return check_queue(folder)


def _queue_once(address: str, recorder: Recorder, dice: random.Random) -> None:
    peer = Peer(address)
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    who = f"user {recorder.client}; session s-{recorder.client}; locks x"
    try:
        recorder.call(LOCK, ["x"])
        peer.say(f"{who}; token 1; block 1; LOCK")
        first = peer.hear_line()
        if first.startswith("print_waiting"):
            recorder.returned("queued")
            if dice.random() < 0.25:
                _leave(address, peer, recorder, who, dice)
                return
            recorder.call(OBTAINED, ["x"])
            answer = peer.hear()
        else:
            answer = [first, *peer.hear()]
        words = dict(line.split(maxsplit=1) for line in answer if " " in line)
        recorder.returned("granted", words["lockname"], int(words["token"]))
        peer.say(f"GOT x {words['token']}")
        time.sleep(dice.choice([0, 0.001, 0.003]))
        recorder.call(UNLOCK, ["x"])
        peer.ask("UNLOCK")
        recorder.returned("freed")
    finally:
        peer.close()


def _leave(address: str, peer: Peer, recorder: Recorder, who: str, dice: random.Random) -> None:
    """Stop waiting: by going without a word, or by an UNLOCK. Behind the latter's answer it waits and holds no more."""
    time.sleep(dice.choice([0, 0, 0.002]))
    recorder.call(GONE, ["x"])
    if dice.random() < 0.5:
        peer.reset()
    messenger = Peer(address)
    try:
        messenger.ask(f"{who}; UNLOCK")
    finally:
        messenger.close()
    recorder.returned()
