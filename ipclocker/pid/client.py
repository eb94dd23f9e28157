"""PidStat, the class for programs: ask pid servers whether processes of other hosts exist, after IPC::PidStat.

Answers come by UDP, so they are fast and may be lost: nothing should depend on getting one. Processes of this host
are looked up in the kernel; the server is asked about those that can't be seen.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable
from math import inf
from typing import Callable, Optional, TypedDict, Union

from ..errors import ServerUnavailable
from ..net.address import Address, find_addresses, own_host_name, socket_path
from ..parameters import check_call, check_seconds, check_text, check_whole
from ..process.identity import ProcessIdentity, exists, parse_pid
from ..process.relation import HERE, comparable_start, relation
from ..process.viewpoint import own_view
from .endpoint import pid_endpoint
from .exchange import AnswerExchange, Stat
from .protocol import ALWAYS, IF_EXISTS, IF_GONE, IF_UNKNOWN, is_wanted

PAUSE = 1.0  # seconds to wait for an answer before the question is sent again: a busy server needs some tenths


class PidPing(TypedDict):
    """The result of a ping: `ok` is True if the server says that the process exists; `status` is a line about it."""

    ok: bool
    status: str


class PidStat:
    """Asks pid servers. `host` is asked if a question names none; for `port` see `pid_endpoint`.

    A host's name is looked up once, and again after it has not answered; a question goes to all its addresses, and
    the first answer counts. A question is sent `tries` times, with PAUSE seconds for each. `trace` is called with each
    datagram that is sent or received, as a line.

    Threads may share a PidStat. What a thread asks by `pid_request_recv` or `ping_status` is answered to that thread;
    the answers to `pid_request` are one queue, for whichever threads call `recv_stat`. A fork begins as a new one.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: Union[str, int, None] = None,
        tries: int = 5,
        trace: Optional[Callable[[str], object]] = None,
    ) -> None:
        """Raises UsageError for a value that means nothing."""
        host = _host("localhost", host)
        check_whole("tries", tries, 1)
        check_call("trace", trace)
        self.host = host
        self.port, self._path = pid_endpoint(port)
        self.tries = tries
        self._trace = trace
        self._addresses: dict[str, list[Address]] = {}
        # By process: a fork does not share its parent's. No lock guards it, which a fork could copy while it is held.
        self._exchanges: dict[int, AnswerExchange] = {}

    # As IPC::PidStat has it

    def pid_request(
        self,
        host: str | None = None,
        pid: int | str | ProcessIdentity | None = None,
        *,
        return_exist: bool = True,
        return_doesnt: bool = True,
        return_unknown: bool = True,
    ) -> None:
        """Send a question whether a process exists: this one, if none is given. `recv_stat` gets the answer.

        An answer of a kind that is not to be returned may not come at all. Raises UsageError for a pid that is no
        positive number, ServerUnavailable if the host is not known.
        """
        host, process = _host(self.host, host), _process(pid)
        flags = _flags(return_exist, return_doesnt, return_unknown)
        there = _look_up_locally(host, process)
        if there is None:
            addresses = self._find(host)
            exchange = self._open()
            exchange.send(exchange.open_question(process, host, flags, has_asker=False), addresses)
        elif is_wanted(flags, there):
            self._open().put((process.pid, there, host))

    def recv_stat(self, timeout: float | None = None) -> Stat | None:
        """Wait for an answer to a `pid_request`, and return pid, existence, and the host as it was asked.

        None if a datagram comes that answers no open question, or if no answer came in `timeout` seconds. Without a
        timeout it waits until something comes, which may be never; in a select loop give 0 if other threads ask, too,
        since they may have taken what was there.
        """
        if timeout is not None:
            check_seconds("timeout", timeout, -inf)
        return self._open().next_answer(inf if timeout is None else time.monotonic() + timeout)

    def pid_request_recv(
        self,
        host: str | None = None,
        pid: int | str | ProcessIdentity | None = None,
        *,
        return_exist: bool = True,
        return_doesnt: bool = True,
        return_unknown: bool = True,
    ) -> Stat | None:
        """Ask and wait for the answer, a second for each of the tries; None if there is none. Raises as pid_request.

        An answer of a kind that is not to be returned does not come from another host: then it takes all of the tries.
        """
        host, process = _host(self.host, host), _process(pid)
        flags = _flags(return_exist, return_doesnt, return_unknown)
        there = _look_up_locally(host, process)
        if there is None:
            return self._ask_and_wait(host, process, flags)
        return (process.pid, there, host) if is_wanted(flags, there) else None

    def ping_status(self, host: str | None = None, pid: int | str | ProcessIdentity = 1) -> PidPing:
        """Ask the server of a host about a process there; say how fast it answers, or what is wrong."""
        host, process = _host(self.host, host), _process(pid)
        where = self._path or str(Address(socket.AF_INET, (host, self.port)))
        begin = time.monotonic()
        try:
            stat = self._ask_and_wait(host, process)
        except ServerUnavailable as error:
            return {"ok": False, "status": str(error)}
        if stat is None:
            return {"ok": False, "status": f"No response from pidstatd on {where}"}
        if not stat[1]:
            state = "does not exist" if stat[1] is False else "cannot be seen"
            return {"ok": False, "status": f"process {process.pid} {state}, says pidstatd on {where}"}
        return {"ok": True, "status": f"{time.monotonic() - begin:.3f} second response on {where}"}

    def fileno(self) -> int:
        """Return a descriptor that is readable when `recv_stat` has something to return or to look at."""
        return self._open().fileno()

    def fh(self) -> PidStat:
        """Return what a select loop takes: this object, since it has a `fileno`."""
        self._open()
        return self

    @staticmethod
    def local_pid_exists(pid: int | str) -> bool | None:
        """Return True if a process of this host exists; None if that can't be known."""
        return exists(int(pid))

    @staticmethod
    def local_pid_doesnt_exist(pid: int | str) -> bool | None:
        """Return True if no process of this host has this number; None if that can't be known."""
        there = exists(int(pid))
        return None if there is None else not there

    # For questions about many processes

    def look_up(self, hosts: Iterable[str]) -> None:
        """Look up the addresses of many hosts at once; a host that is not known shows when it is asked."""

        def find(host: str) -> None:
            with contextlib.suppress(ServerUnavailable):
                self._find(host)

        names = [host for host in dict.fromkeys(hosts) if not is_this_host(host)]
        threads = [threading.Thread(target=find, args=(host,), daemon=True) for host in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """Close the sockets; open questions are given up, and threads that wait for an answer have None."""
        exchange = self._exchanges.pop(os.getpid(), None)
        if exchange is not None:
            exchange.close()

    def __enter__(self) -> PidStat:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Inside

    def _open(self) -> AnswerExchange:
        """Return the exchange of this process, which is made when it is first needed."""
        process = os.getpid()
        exchange = self._exchanges.get(process)
        if exchange is not None:
            return exchange
        for other in [other for other in self._exchanges if other != process]:
            copied = self._exchanges.pop(other, None)
            if copied is not None:
                copied.close_descriptors()
        mine = AnswerExchange(self._path, self._trace)
        exchange = self._exchanges.setdefault(process, mine)
        if exchange is not mine:  # another thread was faster
            mine.close()
        return exchange

    def _ask_and_wait(self, host: str, process: ProcessIdentity, flags: int = ALWAYS) -> Stat | None:
        addresses = self._find(host)
        exchange = self._open()
        question = exchange.open_question(process, host, flags, has_asker=True)
        try:
            for _ in range(self.tries):
                exchange.send(question, addresses)
                if exchange.wait_for(question, time.monotonic() + PAUSE) is not None:
                    break
        finally:
            stat = exchange.give_up(question)
        if stat is None:
            self._addresses.pop(host, None)
        return stat

    def _find(self, host: str) -> list[Address]:
        if self._path is not None:
            return [socket_path(self._path)]
        found = self._addresses.get(host)
        if found is None:
            found = self._addresses[host] = find_addresses(host, self.port, socket.SOCK_DGRAM)
        return found


def is_this_host(host: str) -> bool:
    """Return True if this host calls itself so; other names may be its own, too, and are looked up."""
    own = own_host_name()
    return host in ("localhost", own) or (host.startswith(f"{own}.") and host == socket.getfqdn())


def _look_up_locally(host: str, process: ProcessIdentity) -> bool | None:
    """Look up whether a process of this host exists; None if the server has to be asked."""
    if not is_this_host(host):
        return None
    start = process.start
    if process.boot:
        view = own_view()
        if relation(process, view) != HERE:
            return None  # the server may see more, or be of another host that has this one's name
        start = comparable_start(process, view)
    return exists(process.pid, start)


def _flags(if_exists: bool, if_gone: bool, if_unknown: bool) -> int:
    return IF_EXISTS * if_exists | IF_GONE * if_gone | IF_UNKNOWN * if_unknown


def _host(usual: str, host: str | None) -> str:
    check_text("the name or address of a host", host=host)
    return host or usual


def _process(pid: Union[int, str, ProcessIdentity, None]) -> ProcessIdentity:
    if isinstance(pid, ProcessIdentity):
        return pid
    return ProcessIdentity(os.getpid() if pid is None else parse_pid(pid))
