"""Datagram sockets that a server is asked on, and many datagrams taken or sent by one system call.

A system call a datagram, twice, is most of what a small answer costs. recvmmsg(2) and sendmmsg(2) take a whole
queue at a time; Python has no name for them, so they are called by ctypes, on memory that is laid out once. Where
they are missing, datagrams go one by one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import sys
from array import array
from pathlib import Path
from typing import Any, Literal

from ..errors import UsageError
from .address import Address, find_addresses, socket_path
from .listen import _advice, _folder_locked, _identity, _with_port

LINGER = 0.02  # seconds; a wait that is no longer can be done by a socket's own call, without a loop around it
_AT_ONCE = 64  # datagrams in a batch
_ALONE = 16
_BUFFER = 8 << 20  # bytes that may wait to be read, where that is allowed: 10,000 questions
_SO_RCVBUFFORCE = 33  # as SO_RCVBUF, beyond the system's bound; for root (socket(7))
_DONTWAIT = int(socket.MSG_DONTWAIT)
_MSG_WAITFORONE = 0x10000  # recvmmsg(2)


def udp_sockets(hosts: list[str], port: int) -> list[socket.socket]:
    """Bind a port of each host, which may be a name or an address; port 0 takes one that is free.

    What this system has not (an IPv6 address, say) is left out as long as one address remains. Raises
    ServerUnavailable (host not known) or UsageError (the port is taken, not allowed).
    """
    bound: list[socket.socket] = []
    failure: UsageError | None = None
    try:
        for address in dict.fromkeys(a for host in hosts for a in find_addresses(host, port, socket.SOCK_DGRAM)):
            if port == 0 and bound:
                address = _with_port(address, bound[0].getsockname()[1])
            try:
                bound.append(_bind(address))
            except OSError as error:
                failure = UsageError(f"cannot listen on {address}: {error.strerror}{_advice(error)}")
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise failure from None
        if failure is not None and not bound:
            raise failure
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def udp_everywhere(port: int) -> list[socket.socket]:
    """Bind a port of all addresses of this host, by one socket for IPv4 and IPv6 alike; by one for IPv4 where the
    system has nothing else. Raises UsageError.
    """
    try:
        return [_bind(Address(socket.AF_INET6, ("::", port, 0, 0)), both=True)]
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EPERM):
            raise UsageError(f"cannot listen on port {port}: {error.strerror}{_advice(error)}") from None
        return udp_sockets(["0.0.0.0"], port)


def _bind(address: Address, both: bool = False) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_DGRAM)
    try:
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        widen(sock)
        sock.bind(address.sockaddr)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def widen(sock: socket.socket) -> None:
    """Let as much wait to be read as the system allows, so that a burst is not lost."""
    for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE) if sys.platform == "linux" else (socket.SO_RCVBUF,):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)


class UnixDatagram:
    """A UNIX datagram socket that owns its name in the file system."""

    def __init__(self, path: str) -> None:
        """Bind `path`, in place of a socket there that no server reads any more.

        Raises UsageError if the name is taken by a server that lives or by a file of another kind, or if it
        can't be made.
        """
        self.path = path
        address = socket_path(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            with _folder_locked(path):
                _remove_dead(path)
                self.socket.bind(address.sockaddr)
                self._identity = _identity(path)
            # As a port of this host is: who may ask is for the permissions of its folder to say.
            Path(path).chmod(0o666)
            self.socket.setblocking(False)
        except OSError as error:
            self.socket.close()
            raise UsageError(
                f"cannot listen on the UNIX socket '{path}': {error.strerror} (choose another with --port)"
            ) from None
        except UsageError:
            self.socket.close()
            raise

    def close(self) -> None:
        """Give back the socket, and the name unless somebody else has it by now."""
        with contextlib.suppress(OSError, UsageError), _folder_locked(self.path):
            if _identity(self.path) == self._identity:
                Path(self.path).unlink()
        self.socket.close()


def _remove_dead(path: str) -> None:
    if not Path(path).exists():
        return
    if not Path(path).is_socket():
        raise UsageError(f"cannot listen on '{path}': it is a file, and no socket (choose another with --port)")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except OSError:
            pass  # a socket of another kind, or not ours to connect to: somebody's
    raise UsageError(
        f"cannot listen on '{path}': another server answers there (end that one, or choose another with --port)"
    )


class Batches:
    """A datagram socket that is read and answered in batches; each batch is answered before the next is taken.

    Which way is used follows the load: as long as datagrams come alone, Python's own calls are the faster ones.
    """

    def __init__(self, sock: socket.socket, size: int) -> None:
        """Take datagrams of up to `size` bytes; what is longer is cut."""
        self._socket = sock
        self._size = size
        self._many: _ManyAtOnce | None = None
        with contextlib.suppress(AttributeError):  # the C library has no such calls
            self._many = _ManyAtOnce(sock.fileno(), size)
        self._alone = 0  # how many are to be taken alone before several are tried again
        self._sender: Any = None  # of the one that was taken alone
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(LINGER * 1e6)))
            sock.setblocking(True)
            self._waiting = 0
        except OSError:  # times have another size here
            self._waiting = _DONTWAIT

    def receive(self, wait: bool = False) -> list[bytes]:
        """The datagrams that there are, up to a number; if there are none, one that comes within LINGER seconds."""
        if self._alone or self._many is None:
            self._alone -= 1
            try:
                datagram, self._sender = self._socket.recvfrom(self._size, self._waiting if wait else _DONTWAIT)
            except OSError:
                self._alone = 0
                return []
            return [datagram]
        self._sender = None
        datagrams = self._many.receive(self._waiting if wait else _DONTWAIT)
        if len(datagrams) == 1:
            self._alone = _ALONE
        return datagrams

    def answer(self, answers: list[bytes]) -> None:
        """Send to each sender of the last batch what stands in its place, unless that is empty.

        What can't be sent at once is lost, as a datagram may be.
        """
        if self._sender is None:
            if self._many is not None:
                self._many.answer(answers)
        elif answers[0]:
            with contextlib.suppress(OSError):
                self._socket.sendto(answers[0], _DONTWAIT, self._sender)


class _Part(ctypes.Structure):  # iovec, readv(2)
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):  # msghdr, recvmsg(2)
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("parts", ctypes.c_void_p),
        ("part_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):  # mmsghdr, recvmmsg(2)
    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_NAME_SIZE = 128  # bytes of a sockaddr_storage


class _ManyAtOnce:
    """Each datagram has a slot; its answer is written over it, and goes to the address that came with it."""

    def __init__(self, descriptor: int, size: int) -> None:
        library = ctypes.CDLL(None)
        self._receive, self._send = library.recvmmsg, library.sendmmsg
        self._receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
        self._send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
        self._descriptor = descriptor
        self._data: Any = ctypes.create_string_buffer(_AT_ONCE * size)
        self._names = ctypes.create_string_buffer(_AT_ONCE * _NAME_SIZE)
        self._parts = (_Part * _AT_ONCE)()
        self._messages = (_Message * _AT_ONCE)()
        buffers: tuple[Any, ...] = (self._data, self._names, self._parts, self._messages)
        data, names, parts, self._address = (ctypes.addressof(each) for each in buffers)
        for slot, (part, message) in enumerate(zip(self._parts, self._messages)):
            part.base, part.size = data + slot * size, size
            header = message.header
            header.name, header.name_size = names + slot * _NAME_SIZE, _NAME_SIZE
            header.parts, header.part_count = parts + slot * ctypes.sizeof(_Part), 1
        # Views on one field of all structures: in Python, ten times as fast as one structure's after another.
        self._bytes = memoryview(self._data).cast("B")
        self._lengths = _field(self._messages, _Message.length, "I")
        self._name_sizes = _field(self._messages, _Header.name_size, "I")  # a message begins with its header
        self._sizes = _field(self._parts, _Part.size, "L")
        self._slots = range(0, _AT_ONCE * size, size)
        self._full_names = memoryview(bytes(self._name_sizes)).cast("I")
        self._full_sizes = memoryview(bytes(self._sizes)).cast("L")

    def receive(self, flags: int) -> list[bytes]:
        """One batch, up to _AT_ONCE datagrams; none if none are there, or came in time."""
        count = self._receive(self._descriptor, self._address, _AT_ONCE, flags or _MSG_WAITFORONE, None)
        if count <= 0:
            return []
        data = self._data
        return [data[slot : slot + length] for slot, length in zip(self._slots, self._lengths[:count])]

    def answer(self, answers: list[bytes]) -> None:
        """See Batches."""
        data = self._bytes
        for slot, answer in zip(self._slots, answers):
            data[slot : slot + len(answer)] = answer
        count = len(answers)
        self._sizes[:count] = memoryview(array("L", map(len, answers)))
        self._send_all(answers)
        self._sizes[:count] = self._full_sizes[:count]
        self._name_sizes[:count] = self._full_names[:count]

    def _send_all(self, answers: list[bytes]) -> None:
        ends = [*answers, b""]
        first = 0
        while first < len(answers):
            count = ends.index(b"", first) - first
            place = self._address + first * ctypes.sizeof(_Message)
            sent = self._send(self._descriptor, place, count, _DONTWAIT) if count else 0
            first += max(sent, 1)  # one that is empty, or that can't be sent, is left out


def _field(structures: Any, field: Any, code: Literal["I", "L"]) -> memoryview:
    """One field of each structure of an array, as a view."""
    step = ctypes.sizeof(structures) // len(structures)
    whole = memoryview(structures).cast("B").cast(code)
    return whole[field.offset // field.size :: step // field.size]
