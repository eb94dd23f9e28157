"""PidStat, the class for programs: ask pid servers whether processes of other hosts exist, after IPC::PidStat.

Answers come by UDP, so they are fast and may be lost: nothing should depend on getting one. Processes of this host
are looked up in the kernel; the server is asked about those that can't be seen.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable
from threading import Thread
from typing import Callable, Optional, TypedDict, Union

from ..errors import ServerUnavailable, UsageError
from ..net.address import Address, find_addresses, own_host_name, socket_path
from ..process.identity import ProcessIdentity, exists, own_boot, own_pidns
from .endpoint import pid_endpoint
from .pending import PendingQueries
from .protocol import IF_EXISTS, IF_GONE, IF_UNKNOWN, MAX_DATAGRAM, is_wanted

PAUSE = 1.0  # seconds to wait for an answer before the question is sent again: a busy server needs some tenths

Stat = tuple[int, Optional[bool], str]  # pid; whether it exists, None if that can't be known; host, as it was asked


class PidPing(TypedDict):
    """The result of a ping: `ok` is True if the server says that the process exists; `status` is a line about it."""

    ok: bool
    status: str


class PidStat:
    """Asks pid servers. `host` is asked if a question names none; for `port` see `pid_endpoint`.

    A host's name is looked up once, and again after it has not answered; a question goes to all its addresses, and
    the first answer counts. A question is sent `tries` times, with PAUSE seconds for each. `trace` is called with each
    datagram that is sent or received, as a line.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: str | int | None = None,
        tries: int = 5,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.host = host
        self.port, self._path = pid_endpoint(port)
        self.tries = tries
        self._trace = trace
        self._questions: PendingQueries[str] = PendingQueries()
        self._ready: deque[Stat] = deque()  # answers that wait to be fetched
        self._addresses: dict[str, list[Address]] = {}
        self._selector: selectors.BaseSelector | None = None

    # As IPC::PidStat has it

    def pid_request(
        self,
        host: str | None = None,
        pid: int | ProcessIdentity | None = None,
        *,
        return_exist: bool = True,
        return_doesnt: bool = True,
        return_unknown: bool = True,
    ) -> None:
        """Send a question whether a process exists: this one, if none is given. `recv_stat` gets the answer.

        An answer of a kind that is not to be returned may not come at all. Raises UsageError for a pid that is no
        positive number, ServerUnavailable if the host is not known.
        """
        host, process = host or self.host, _process(pid)
        flags = IF_EXISTS * return_exist | IF_GONE * return_doesnt | IF_UNKNOWN * return_unknown
        if not self._look_up_locally(host, process, flags):
            self._send(self._questions.ask(process, host, flags)[1], host)

    def recv_stat(self, timeout: float | None = None) -> Stat | None:
        """Wait for one datagram, `timeout` seconds at most, and return pid, existence, and the host as it was asked.

        None if none came, if it does not answer an open question, or if there is no open question.
        """
        if self._ready:
            if len(self._ready) == 1:
                self._wake_in.recv(1)
            return self._ready.popleft()
        found = self._receive(timeout)
        return None if found is None else found[1]

    def pid_request_recv(self, host: str | None = None, pid: int | ProcessIdentity | None = None) -> Stat | None:
        """Ask and wait for the answer, a second for each of the tries; None if there is none. Raises as pid_request."""
        host, process = host or self.host, _process(pid)
        if self._look_up_locally(host, process):
            return self._ready.pop() if len(self._ready) > 1 else self.recv_stat()
        return self._ask_and_wait(host, process)

    def ping_status(self, host: str | None = None, pid: int | ProcessIdentity = 1) -> PidPing:
        """Ask the server of a host about a process there; say how fast it answers, or what is wrong."""
        host, process = host or self.host, _process(pid)
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
        return self._open().fileno()  # type: ignore[attr-defined, no-any-return]

    def fh(self) -> PidStat:
        """Return what a select loop takes: this object, since it has a `fileno`."""
        self._open()
        return self

    @staticmethod
    def local_pid_exists(pid: int) -> bool | None:
        """Return True if a process of this host exists; None if that can't be known."""
        return exists(pid)

    @staticmethod
    def local_pid_doesnt_exist(pid: int) -> bool | None:
        """Return True if no process of this host has this number; None if that can't be known."""
        there = exists(pid)
        return None if there is None else not there

    # For questions about many processes

    def look_up(self, hosts: Iterable[str]) -> None:
        """Look up the addresses of many hosts at once; a host that is not known shows when it is asked."""

        def find(host: str) -> None:
            with contextlib.suppress(ServerUnavailable):
                self._find(host)

        names = [host for host in dict.fromkeys(hosts) if not is_this_host(host)]
        threads = [Thread(target=find, args=(host,), daemon=True) for host in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """Close the sockets; open questions are given up."""
        self._questions = PendingQueries()
        self._ready.clear()
        if self._selector is not None:
            self._selector.close()
            for sock in (self._socket, self._wake_in, self._wake_out):
                sock.close()
            self._selector = None

    def __enter__(self) -> PidStat:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Inside

    def _open(self) -> selectors.BaseSelector:
        """Return what waits for the sockets, which are made when they are first needed."""
        if self._selector is None:
            self._socket = self._new_socket()
            self._wake_in, self._wake_out = socket.socketpair()  # makes `fileno` readable when answers wait here
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._socket, selectors.EVENT_READ)
            self._selector.register(self._wake_in, selectors.EVENT_READ)
        return self._selector

    def _new_socket(self) -> socket.socket:
        self._is_dual_stack = False
        if self._path is not None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            sock.bind("")  # a name of its own, or there is no way back
        else:
            try:
                sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # one socket for both
                self._is_dual_stack = True
            except OSError:
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        return sock

    def _look_up_locally(self, host: str, process: ProcessIdentity, flags: int = IF_EXISTS | IF_GONE) -> bool:
        """Look up a process of this host, and store the answer if it is wanted; False if the server has to be asked."""
        if not is_this_host(host):
            return False
        if process.boot and process.boot != own_boot():
            there: bool | None = False
        elif process.pidns is not None and process.pidns != own_pidns():
            return False
        else:
            there = exists(process.pid, process.start)
        if there is None:
            return False
        if is_wanted(flags, there):
            self._store((process.pid, there, host))
        return True

    def _store(self, stat: Stat) -> None:
        self._open()
        if not self._ready:
            self._wake_out.send(b".")
        self._ready.append(stat)

    def _ask_and_wait(self, host: str, process: ProcessIdentity) -> Stat | None:
        secret, datagram = self._questions.ask(process, host)
        for _ in range(self.tries):
            self._send(datagram, host)
            until = time.monotonic() + PAUSE
            while True:
                left = until - time.monotonic()
                if left <= 0:
                    break
                found = self._receive(left)
                if found is not None:
                    if found[0] == secret:
                        return found[1]
                    self._store(found[1])  # the answer to another question
        self._questions.give_up(secret)
        self._addresses.pop(host, None)
        return None

    def _send(self, datagram: bytes, host: str) -> None:
        self._open()
        for address in self._find(host):
            sockaddr = address.sockaddr
            if self._is_dual_stack and address.family == socket.AF_INET:
                sockaddr = (f"::ffff:{sockaddr[0]}", int(sockaddr[1]))
            if self._trace is not None:
                self._trace(f"to {address}: {datagram.decode().strip()}")
            with contextlib.suppress(OSError):  # no way there: as if it had been lost on the way
                self._socket.sendto(datagram, sockaddr)

    def _find(self, host: str) -> list[Address]:
        if self._path is not None:
            return [socket_path(self._path)]
        found = self._addresses.get(host)
        if found is None:
            found = self._addresses[host] = find_addresses(host, self.port, socket.SOCK_DGRAM)
        return found

    def _receive(self, timeout: float | None) -> tuple[bytes, Stat] | None:
        """Receive one datagram; return the secret and the answer if it answers an open question."""
        if not self._questions:
            return None
        if not any(key.fileobj is self._socket for key, _ in self._open().select(timeout)):
            return None
        try:
            datagram = self._socket.recv(MAX_DATAGRAM + 1)
        except OSError:
            return None
        if self._trace is not None:
            self._trace(f"received: {datagram.decode(errors='backslashreplace')}")
        found = self._questions.receive(datagram)
        if found is None:
            return None
        answer, host = found
        return answer.host, (answer.pid, answer.exists, host)


def is_this_host(host: str) -> bool:
    """Return True if this host calls itself so; other names may be its own, too, and are looked up."""
    own = own_host_name()
    return host in ("localhost", own) or (host.startswith(f"{own}.") and host == socket.getfqdn())


def _process(pid: Union[int, ProcessIdentity, None]) -> ProcessIdentity:
    process = pid if isinstance(pid, ProcessIdentity) else ProcessIdentity(os.getpid() if pid is None else pid)
    if process.pid <= 0:
        raise UsageError(f"the pid '{process.pid}' is no positive number: it names no process")
    return process
