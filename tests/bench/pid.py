"""Costs of the pid server for a request, beside a bare Python loop that receives and sends and looks at nothing.

Both are asked in turns, about 1,000 pids of which half exist, so that a slow moment of the machine hits both. Those
that don't are numbers that a process could have. Then: how many of 50,000 requests a second are lost.

    python -m tests.bench.pid
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from .locks import FILE, PYTHON, Server, server
from .size import sized

PIDS = sized(1000, 20)
ROUNDS = sized(7, 1)
SECONDS = sized(0.7, 0.05)  # a round
WINDOWS = (1, 16, 64)
RATE, RATE_SECONDS = 50_000, sized(10.0, 0.2)
WATCHERS, WATCH_SECONDS = sized(10_000, 100), sized(10.0, 0.5)


# The same answer to everything.
BARE = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 0))
print(f"listening on 127.0.0.1:{sock.getsockname()[1]}", flush=True)
receive, send = sock.recvfrom, sock.sendto
while True:
    _, sender = receive(2048)
    send(b"EXIS 12345 1 somehost", sender)
"""


@contextlib.contextmanager
def asked_pids() -> Iterator[list[int]]:
    """Numbers of which every other one is a process's."""
    limit = int(Path("/proc/sys/kernel/pid_max").read_text())
    taken = {int(path.name) for path in Path("/proc").glob("[0-9]*")}
    free = [pid for pid in range(limit - 1, limit - 5 * PIDS, -1) if pid not in taken][: PIDS // 2]
    children = [subprocess.Popen(["sleep", "1000"]) for _ in free]
    try:
        yield [pid for pair in zip(free, (child.pid for child in children)) for pid in pair]
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()


class Load:
    """Keeps so many questions in flight."""

    def __init__(self, port: int, pids: list[int]) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._sock.connect(("127.0.0.1", port))
        self._questions = [b"PIDR %d somehost 7\n" % pid for pid in pids]
        self._next = 0

    def run(self, seconds: float, window: int) -> int:
        """Go on for so long; the number of answers."""
        send, receive, questions = self._sock.send, self._sock.recv, self._questions
        count, end = 0, time.monotonic() + seconds
        at = self._next
        for _ in range(window):
            send(questions[at % PIDS])
            at += 1
        while time.monotonic() < end:
            for _ in range(64):
                receive(100)
                send(questions[at % PIDS])
                at += 1
            count += 64
        for _ in range(window):
            receive(100)
        self._next = at
        return count + window

    def offer(self, rate: float, seconds: float) -> tuple[int, int]:
        """Send at a rate, whatever comes back; how many were sent, and answered."""
        sock, questions = self._sock, self._questions
        sent = answered = 0
        begin = time.monotonic()
        while (passed := time.monotonic() - begin) < seconds:
            while sent < passed * rate:
                sock.send(questions[sent % PIDS])
                sent += 1
            answered += self._drain()
        deadline = time.monotonic() + 1
        while answered < sent and time.monotonic() < deadline:
            answered += self._drain()
        return sent, answered

    def _drain(self) -> int:
        count = 0
        while select.select([self._sock], [], [], 0)[0]:
            for _ in range(20):
                try:
                    self._sock.recv(100, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                count += 1
        return count


def compare(ours: Server, theirs: Server, pids: list[int]) -> None:
    """Print the processor time for a request, and the ratio."""
    loads = [Load(ours.port, pids), Load(theirs.port, pids)]
    for window in WINDOWS:
        taken: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for which, measured in enumerate((ours, theirs)):
                before = measured.cpu()
                done = loads[which].run(SECONDS, window)
                taken[which].append((measured.cpu() - before) / done * 1e6)
        mine, peer = (statistics.median(each) for each in taken)
        ratio = statistics.median(a / b for a, b in zip(*taken))
        title = f"a pid request, {window} in flight"
        print(f"{title:<34} {mine:7.1f} us  bare loop {peer:6.1f} us  ratio {ratio:.2f}", flush=True)


def losses(ours: Server, pids: list[int]) -> None:
    """Print how many of many requests get no answer."""
    sent, answered = Load(ours.port, pids).offer(RATE, RATE_SECONDS)
    rate = sent / RATE_SECONDS
    print(f"{'requests lost':<34} {100 * (1 - answered / sent):7.3f} % of {rate:.0f} a second offered", flush=True)


def watchers(ours: Server, pid: int) -> None:
    """Print what 10,000 clients, each on a socket of its own and asking once a second, hear of a process that lives."""
    poll, socks = select.epoll(), []
    question = b"PIDR %d somehost 7\n" % pid
    for _ in range(WATCHERS):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", ours.port))
        poll.register(sock, select.EPOLLIN)
        socks.append(sock)
    by_number = {sock.fileno(): sock for sock in socks}
    sent = heard = gone = 0
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < WATCH_SECONDS + 1:
        while sent < min(passed, WATCH_SECONDS) * WATCHERS:
            socks[sent % WATCHERS].send(question)
            sent += 1
        for number, _ in poll.poll(0.001):
            heard += 1
            gone += by_number[number].recv(100).split()[2] == b"0"
    for sock in socks:
        sock.close()
    title = f"{WATCHERS:,} clients, a request a second"
    print(f"{title:<34} {heard} of {sent} answered, falsely told gone: {gone}", flush=True)


def main() -> None:
    """Measure and print."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    pidstatd = server(PYTHON, "-IS", FILE, "pidstatd", "--nofork", "--host", "127.0.0.1", "--port", "0")
    with asked_pids() as pids, pidstatd as ours, server(PYTHON, "-IS", "-c", BARE) as theirs:
        compare(ours, theirs, pids)
        losses(ours, pids)
        watchers(ours, pids[1])


if __name__ == "__main__":
    main()
