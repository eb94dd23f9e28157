"""Receiving datagrams in batches, and answering each batch before the next one is received.

A batch lets a server do once what it has to do before each answer. An answer leaves from the address that was asked,
also by a socket that is bound to all addresses of its host: the kernel says with each datagram which address that was
(ip(7), IP_PKTINFO), and is told the same with the answer. Otherwise a connected socket or a firewall, which waits for
that address only, would drop it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Any, NamedTuple, Optional

# Seconds that `receive` may wait in the socket's own call, which saves a turn of the loop; so short that nothing else
# in the loop is late.
LINGER = 0.02
_AT_ONCE = 64  # datagrams in a batch; more save nothing, and a batch is answered before the next one is read
_ALONE = 16  # datagrams taken one by one after one that came alone, before a batch is tried again
_MOST_ADDRESSES = 1_000  # addresses of this host for which the way back is kept
_DONTWAIT = int(socket.MSG_DONTWAIT)
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
    """A datagram socket that is read and answered in batches."""

    def __init__(self, sock: socket.socket, size: int) -> None:
        """Prepare for datagrams of up to `size` bytes; a longer one is cut."""
        self._socket = sock
        self._size = size
        self._info = _ask_for_info(sock)
        self._senders: list[Any] = []  # of the last batch, each with the kernel's message on the address that was asked
        self._ways_back: dict[bytes, list[tuple[int, int, bytes]]] = {}  # for each message the one for the answer
        self._alone = 0  # how many are to be taken one by one before several are tried again
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(LINGER * 1e6)))
            sock.setblocking(True)
            self._waiting = 0
        except OSError:  # times have another size here
            self._waiting = _DONTWAIT

    def receive(self, wait: bool = False) -> list[bytes]:
        """Receive the datagrams that are there, _AT_ONCE at most; with `wait`, wait LINGER seconds for the first."""
        datagrams: list[bytes] = []
        self._senders = []
        receive = self._receive_plain if self._info is None else self._receive_with_info
        with contextlib.suppress(OSError):  # no more are there
            datagrams.append(receive(self._waiting if wait else _DONTWAIT))
            if self._alone:
                self._alone -= 1
                return datagrams
            while len(datagrams) < _AT_ONCE:
                datagrams.append(receive(_DONTWAIT))
        self._alone = _ALONE if len(datagrams) == 1 else 0
        return datagrams

    def answer(self, answers: list[bytes]) -> None:
        """Send an answer to each sender of the last batch, in the batch's order; an empty one is not sent.

        An answer that can't be sent at once is lost, as any datagram may be.
        """
        for answer, (message, sender) in zip(answers, self._senders):
            if answer and sender is not None:
                with contextlib.suppress(OSError):
                    if self._info is None:
                        self._socket.sendto(answer, _DONTWAIT, sender)
                    else:
                        self._socket.sendmsg((answer,), self._way_back(message), _DONTWAIT, sender)

    def _receive_plain(self, flags: int) -> bytes:
        datagram, sender = self._socket.recvfrom(self._size, flags)
        self._senders.append((None, sender))
        return datagram

    def _receive_with_info(self, flags: int) -> bytes:
        assert self._info is not None
        space = socket.CMSG_SPACE(self._info.size)
        datagram, messages, _, sender = self._socket.recvmsg(self._size, space, flags)
        self._senders.append((messages[0] if messages else None, sender))
        return datagram

    def _way_back(self, message: tuple[int, int, bytes] | None) -> list[tuple[int, int, bytes]]:
        """Make the message that lets an answer leave from the address that was asked."""
        if message is None or self._info is None:
            return []
        level, kind, data = message
        way = self._ways_back.get(data)
        if way is None:
            if len(self._ways_back) >= _MOST_ADDRESSES:
                self._ways_back.clear()
            at = self._info.interface
            way = self._ways_back[data] = [(level, kind, data[:at] + b"\0\0\0\0" + data[at + 4 :])]
        return way
