"""Costs of locks that are kept in etcd, beside those of etcd alone and of locks in memory.

The cluster has three members with etcd's usual settings: each flushes all that it writes, to the disk of this host.
Members, servers and load share its processors, so the ratios say more than the figures; they are of turns that were
taken one after the other.

    python -m tests.bench.etcd
"""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import signal
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..support import PROJECT
from ..support.etcd import Etcd, running_etcd
from ..support.waiting import wait_for
from . import commands, load
from .bare_etcd import BareEtcd
from .locks import FILE, PYTHON, Server, lockerd, server
from .size import sized

CLIENTS, BARE_CLIENTS, BATCH = 64, 32, 64
ROUNDS, SECONDS = sized(7, 1), sized(2.0, 0.1)  # a round
FEW, MANY = sized(10_000, 100), sized(100_000, 300)  # locks
TTL = sized(5, 2)  # seconds


@contextlib.contextmanager
def replica(etcd: Etcd, prefix: str) -> Iterator[Server]:
    """A lockerd on etcd, from the built file: the first one of a prefix serves, the second one stands by.

    Its state folder is its own: in that of this host it would note this etcd, and refuse that of the next run.
    """
    where = ["--host", "127.0.0.1", "--port", "0", "--etcd", ",".join(etcd.urls), "--etcd-prefix", prefix]
    with tempfile.TemporaryDirectory() as state:
        where += ["--state-dir", state]
        with server(PYTHON, "-IS", FILE, "lockerd", "--nofork", "--leader-ttl", str(TTL), *where) as running:
            yield running


def show(title: str, text: str) -> None:
    """Print a line."""
    print(f"{title:<34} {text}", flush=True)


def median(values: list[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The middle one of those of each turn."""
    return statistics.median(a / b for a, b in zip(ours, theirs))


def many_clients(etcd: Etcd) -> None:
    """Print how many changes a second there are of many clients, and what each costs."""
    with replica(etcd, "many/") as ours, lockerd() as memory:
        loads = [load.Kept(each.port, CLIENTS) for each in (ours, memory)]
        bare = (BareEtcd(etcd.urls, BARE_CLIENTS, 1), BareEtcd([etcd.leader().url], 1, BATCH))
        rates: list[list[float]] = [[], [], []]
        cpu: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for number, running in enumerate((ours, memory)):
                before, begin = running.cpu(), time.monotonic()
                done = loads[number].run(SECONDS)
                cpu[number].append((running.cpu() - before) / done * 1e6)
                if running is ours:
                    rates[0].append(done / (time.monotonic() - begin))
            for number, clients in enumerate(bare):
                begin = time.monotonic()
                rates[number + 1].append(clients.run(SECONDS) / (time.monotonic() - begin))
    mine, single, batches = rates
    show(
        f"in etcd, {CLIENTS} clients",
        f"{median(mine):7.0f} changes/s  {BARE_CLIENTS} clients of etcd with one each {median(single):.0f}/s, ratio "
        f"{ratio(mine, single):.2f}; one with {BATCH} each {median(batches):.0f}/s, ratio {ratio(mine, batches):.2f}",
    )
    show(
        "  processor time of lockerd",
        f"{median(cpu[0]):7.1f} us a change  in memory {median(cpu[1]):.1f} us  ratio {ratio(*cpu):.2f}",
    )


def one_client(etcd: Etcd) -> None:
    """Print how long one client alone waits for an answer."""
    with replica(etcd, "one/") as ours:
        # lockerd asks the member that leads, too
        both = (load.Kept(ours.port, 1).run, BareEtcd([etcd.leader().url], 1, 1).run)
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for number, run in enumerate(both):
                begin = time.monotonic()
                done = run(SECONDS)
                times[number].append((time.monotonic() - begin) / done * 1000)
    more = statistics.median(a - b for a, b in zip(*times))
    show(
        "in etcd, one client alone",
        f"{median(times[0]):7.2f} ms  a transaction of etcd's {median(times[1]):.2f} ms, difference {more:.2f} ms",
    )


def renewals(etcd: Etcd) -> None:
    """Print how many leases a second are renewed, and how many rounds of etcd that takes."""
    with replica(etcd, "renewals/") as ours:
        clients = load.Renewing(ours.port, CLIENTS)
        rates, shared = [], []
        for _ in range(ROUNDS):
            begin, before = time.monotonic(), _rounds(etcd)
            done = clients.run(SECONDS)
            rates.append(done / (time.monotonic() - begin))
            shared.append(done / (_rounds(etcd) - before))
    show(f"renewals, {CLIENTS} clients", f"{median(rates):7.0f} a second  {median(shared):.1f} share a round of etcd")


def _rounds(etcd: Etcd) -> int:
    """How many requests the members have answered that read or write keys; the election's few are among them."""
    found = 0
    for member in etcd.members:
        with contextlib.closing(http.client.HTTPConnection(member.address, member.port)) as connection:
            connection.request("GET", "/metrics")
            told = connection.getresponse().read().decode()
        handled = re.findall(r'^grpc_server_handled_total{.*grpc_method="(?:Range|Txn)".*} (\S+)$', told, re.MULTILINE)
        found += sum(int(float(count)) for count in handled)
    return found


def changes_of_leader(etcd: Etcd) -> None:
    """Print how long nobody serves when the leader goes."""
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(replica(etcd, "leaders/")) for _ in range(2))
        load.hold(first.port, FEW)
        begin = time.monotonic()
        first.signal(signal.SIGTERM)
        _wait_until_served(second.port)
        show(f"handover with {FEW:,} locks", f"{time.monotonic() - begin:7.2f} s")
        third = stack.enter_context(replica(etcd, "leaders/"))
        begin = time.monotonic()
        second.signal(signal.SIGKILL)
        _wait_until_served(third.port)
        show(f"fail-over with {FEW:,} locks", f"{time.monotonic() - begin:7.2f} s after kill -9, with a ttl of {TTL} s")
        load.hold(third.port, MANY)
        last = stack.enter_context(replica(etcd, "leaders/"))
        leader = etcd.entries("leaders/leader")
        begin = time.monotonic()
        third.signal(signal.SIGTERM)
        wait_for(lambda: etcd.entries("leaders/leader") not in (leader, []), "the next leader")
        elected = time.monotonic()
        _wait_until_served(last.port)
        served = time.monotonic()
        show(f"handover with {MANY:,} locks", f"{served - begin:7.2f} s  {served - elected:.2f} s of it to load them")


def _wait_until_served(port: int) -> None:
    def ask() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"user x\nlocks H1\nSTATUS\nEOF\n")
            return b"locked 0" in sock.recv(4096)  # which another one holds
        return False

    wait_for(ask, "an answer of the next lockerd")


def commands_in_turn(etcd: Etcd, folder: Path, compiler: str) -> None:
    """Print the pause between two commands under one lock."""
    stamp, times = folder / "stamp", folder / "times"
    commands.compile_stamp(compiler, stamp)
    with replica(etcd, "commands/") as running:
        where = ["--dhost", "127.0.0.1", "--port", str(running.port)]
        etcdctl = ["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", ",".join(etcd.urls), "lock", "x"]
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(ROUNDS):
            ours.append(median(commands.pauses([*commands.LOCKERSH, *where], stamp, times)))
            theirs.append(median(commands.pauses(etcdctl, stamp, times)))
    show(
        "end of a command to the next start",
        f"{median(ours):7.2f} ms  etcdctl lock {median(theirs):.2f} ms  ratio {ratio(ours, theirs):.2f}",
    )


def main() -> None:
    """Measure and print."""
    compiler = shutil.which("cc")
    commands_take = "end of a command to the next start: left out, it takes etcd, etcdctl and a C compiler"
    if not shutil.which("etcd"):
        print("in etcd: left out, it takes etcd", commands_take, sep="\n")
        return
    with tempfile.TemporaryDirectory(dir=PROJECT / "dist") as name:  # not in /tmp, which may be in memory
        folder = Path(name)
        with running_etcd(folder / "etcd", 3, quick=False) as etcd:
            many_clients(etcd)
            one_client(etcd)
            renewals(etcd)
            changes_of_leader(etcd)
            if compiler and shutil.which("etcdctl"):
                commands_in_turn(etcd, folder, compiler)
            else:
                print(commands_take)


if __name__ == "__main__":
    main()
