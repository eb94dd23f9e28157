"""Receiving and answering many datagrams with one system call each.

Two system calls a datagram are most of the cost of a small answer. recvmmsg(2) and sendmmsg(2) take a whole queue at
a time; Python has no functions for them, so they are called by ctypes, on memory that is laid out once. Where they
are missing, datagrams are taken one by one. For a pid server on all addresses one call a datagram, however it is done,
costs 1.2 times as much of the processor with 16 questions waiting, and 1.5 times with 64; with few both cost the same.

An answer leaves from the address that was asked, also by a socket that is bound to all addresses of its host: the
kernel says with each datagram which address that was (ip(7), IP_PKTINFO), and is told the same with the answer.
Otherwise a connected socket or a firewall, which waits for that address only, would drop it.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
from array import array
from typing import Any, Literal, NamedTuple, Optional

# Seconds that `receive` may wait in the socket's own call, which saves a turn of the loop; so short that nothing else
# in the loop is late.
LINGER = 0.02
_AT_ONCE = 64  # datagrams in a batch; more save nothing, and a batch is answered before the next one is read
_ALONE = 16  # datagrams taken one by one after one that came alone, before a batch is tried again
_DONTWAIT = int(socket.MSG_DONTWAIT)
_MSG_WAITFORONE = 0x10000  # recvmmsg(2)
_NAME_SIZE = 128  # bytes of a sockaddr_storage
_IP_PKTINFO = 8


class _Info(NamedTuple):
    """The kernel's message on which address was asked: its bytes, and the place of the interface's number in it.

    That number is set to 0 in the answer, so that the routes decide which way it goes.
    """

    size: int
    interface: int


_INFOS = {socket.AF_INET: _Info(12, 0), socket.AF_INET6: _Info(20, 16)}  # in_pktinfo, in6_pktinfo


def _ask_for_info(sock: socket.socket) -> Optional[_Info]:
    """Have the kernel say which address was asked, if the socket is bound to more than one."""
    if sys.platform != "linux" or sock.family == socket.AF_UNIX or sock.getsockname()[0] not in ("0.0.0.0", "::"):
        return None
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)  # an IPv4 address comes mapped
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    return _INFOS[sock.family]


class DatagramBatcher:
    """A datagram socket that is read and answered in batches; each batch is answered before the next is taken.

    The load decides how: as long as datagrams come alone, Python's own calls are the faster ones.
    """

    def __init__(self, sock: socket.socket, size: int) -> None:
        """Prepare for datagrams of up to `size` bytes; a longer one is cut."""
        info = _ask_for_info(sock)
        self._one = _OneByOne(sock, size, info)
        self._many: _ManyAtOnce | None = None
        with contextlib.suppress(AttributeError):  # the C library has no such calls
            self._many = _ManyAtOnce(sock.fileno(), size, info)
        self._last: _OneByOne | _ManyAtOnce = self._one
        self._alone = 0  # how many are to be taken one by one before several are tried again
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(LINGER * 1e6)))
            sock.setblocking(True)
            self._waiting = 0
        except OSError:  # times have another size here
            self._waiting = _DONTWAIT

    def receive(self, wait: bool = False) -> list[bytes]:
        """Receive the datagrams that are there, _AT_ONCE at most; with `wait`, wait LINGER seconds for the first."""
        flags = self._waiting if wait else _DONTWAIT
        if self._alone or self._many is None:
            self._last = self._one
            datagrams = self._one.receive(flags)
            self._alone = self._alone - 1 if datagrams and self._alone else 0
        else:
            self._last = self._many
            datagrams = self._many.receive(flags)
            if len(datagrams) == 1:
                self._alone = _ALONE
        return datagrams

    def answer(self, answers: list[bytes]) -> None:
        """Send an answer to each sender of the last batch, in the batch's order; an empty one is not sent.

        An answer that can't be sent at once is lost, as any datagram may be.
        """
        self._last.answer(answers)


class _OneByOne:
    def __init__(self, sock: socket.socket, size: int, info: _Info | None) -> None:
        self._socket = sock
        self._size = size
        self._info = info
        self._sender: Any = None
        self._ways: list[tuple[int, int, bytes]] = []  # with what the kernel tells of the address that was asked

    def receive(self, flags: int) -> list[bytes]:
        try:
            if self._info is None:
                datagram, self._sender = self._socket.recvfrom(self._size, flags)
            else:
                datagram, self._ways, _, self._sender = self._socket.recvmsg(
                    self._size, socket.CMSG_SPACE(self._info.size), flags
                )
        except OSError:
            return []
        return [datagram]

    def answer(self, answers: list[bytes]) -> None:
        answer = answers[0]
        if not answer or self._sender is None:
            return
        with contextlib.suppress(OSError):
            if self._info is None:
                self._socket.sendto(answer, _DONTWAIT, self._sender)
            else:
                at = self._info.interface
                ways = [(level, kind, data[:at] + b"\0\0\0\0" + data[at + 4 :]) for level, kind, data in self._ways]
                self._socket.sendmsg([answer], ways, _DONTWAIT, self._sender)


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


class _ManyAtOnce:
    """Batches by recvmmsg: each datagram has a slot; its answer is written over it, and goes to the same address."""

    def __init__(self, descriptor: int, size: int, info: _Info | None) -> None:
        library = ctypes.CDLL(None)
        self._receive, self._send = library.recvmmsg, library.sendmmsg
        self._receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
        self._send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
        self._descriptor = descriptor
        control_size = 0 if info is None else socket.CMSG_SPACE(info.size)
        self._data: Any = ctypes.create_string_buffer(_AT_ONCE * size)
        self._names = ctypes.create_string_buffer(_AT_ONCE * _NAME_SIZE)
        self._controls = ctypes.create_string_buffer(_AT_ONCE * control_size)
        self._parts = (_Part * _AT_ONCE)()
        self._messages = (_Message * _AT_ONCE)()
        buffers: tuple[Any, ...] = (self._data, self._names, self._controls, self._parts, self._messages)
        data, names, controls, parts, self._address = (ctypes.addressof(each) for each in buffers)
        for slot, (part, message) in enumerate(zip(self._parts, self._messages)):
            part.base, part.size = data + slot * size, size
            header = message.header
            header.name, header.name_size = names + slot * _NAME_SIZE, _NAME_SIZE
            header.parts, header.part_count = parts + slot * ctypes.sizeof(_Part), 1
            if info is not None:
                header.control, header.control_size = controls + slot * control_size, control_size
        self._lay_views(size, info)

    def _lay_views(self, size: int, info: _Info | None) -> None:
        """Make views on one field of all structures: ten times as fast as one structure after another."""
        self._slots = range(0, _AT_ONCE * size, size)
        self._bytes = memoryview(self._data).cast("B")
        self._lengths = _field(self._messages, _Message.length, "I")
        self._sizes = _field(self._parts, _Part.size, "L")
        # Fields that the kernel writes to, or the sender, with what is to stand there before the next batch.
        # A message begins with its header.
        self._resets = [_with_copy(self._sizes, "L"), _with_copy(_field(self._messages, _Header.name_size, "I"), "I")]
        if info is not None:
            self._resets.append(_with_copy(_field(self._messages, _Header.control_size, "L"), "L"))
        self._interfaces: memoryview | None = None
        if info is not None:
            place = (socket.CMSG_LEN(0) + info.interface) // 4
            step = socket.CMSG_SPACE(info.size) // 4
            self._interfaces = memoryview(self._controls).cast("B").cast("I")[place::step]
            self._no_interfaces = memoryview(bytes(4 * _AT_ONCE)).cast("I")

    def receive(self, flags: int) -> list[bytes]:
        count = self._receive(self._descriptor, self._address, _AT_ONCE, flags or _MSG_WAITFORONE, None)
        if count <= 0:
            return []
        data = self._data
        return [data[slot : slot + length] for slot, length in zip(self._slots, self._lengths[:count])]

    def answer(self, answers: list[bytes]) -> None:
        data = self._bytes
        for slot, answer in zip(self._slots, answers):
            data[slot : slot + len(answer)] = answer
        count = len(answers)
        self._sizes[:count] = memoryview(array("L", map(len, answers)))
        if self._interfaces is not None:
            self._interfaces[:count] = self._no_interfaces[:count]
        self._send_all(answers)
        for view, before in self._resets:
            view[:count] = before[:count]

    def _send_all(self, answers: list[bytes]) -> None:
        first = self._send(self._descriptor, self._address, len(answers), _DONTWAIT) if all(answers) else 0
        if first == len(answers):
            return
        ends = [*answers, b""]
        first = max(first, 0)
        while first < len(answers):
            count = ends.index(b"", first) - first
            place = self._address + first * ctypes.sizeof(_Message)
            sent = self._send(self._descriptor, place, count, _DONTWAIT) if count else 0
            first += max(sent, 1)  # one that is empty, or that can't be sent, is left out


def _field(structures: Any, field: Any, code: Literal["I", "L"]) -> memoryview:
    """Make a view on one field of each structure of an array."""
    step = ctypes.sizeof(structures) // len(structures)
    whole = memoryview(structures).cast("B").cast(code)
    return whole[field.offset // field.size :: step // field.size]


def _with_copy(view: memoryview, code: Literal["I", "L"]) -> tuple[memoryview, memoryview]:
    """Return a view, and a copy of what is there now."""
    return view, memoryview(bytes(view)).cast(code)
