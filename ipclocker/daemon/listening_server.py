"""What servers that listen share: sockets that are bound, inherited, handed over to the next server, and closed."""

from __future__ import annotations

import socket
from typing import Any, Callable, Optional

from ..net.address import Address
from ..net.unix_socket import UnixSocket
from .inheritance import Inheritance
from .loop_server import LoopServer

Sockets = list[socket.socket]


class ListeningServer(LoopServer):
    """A LoopServer with sockets, which its constructor opens by `_open_sockets`, and its `_close` closes."""

    _made_with: dict[str, Any]  # the parameters of the constructor
    _sockets: Sockets
    _unix: Optional[UnixSocket]  # the only socket, if that has a name in the file system that is ours to remove

    @property
    def addresses(self) -> list[str]:
        """The addresses on which it listens, as `host:port` or as the name of the UNIX socket."""
        return [str(Address(sock.family, sock.getsockname())) for sock in self._sockets]

    def hand_over(self) -> Inheritance:
        """Close, but for the sockets and the name of the UNIX socket."""
        handed = Inheritance(tuple(self._sockets), None if self._unix is None else self._unix.name)
        self._sockets, self._unix = [], None
        self.close()
        return handed

    def _open_sockets(
        self,
        inherited: Inheritance,
        path: str | None,
        unix: type[UnixSocket],
        adopt: Callable[[Sockets], Sockets],
        bind: Callable[[], Sockets],
    ) -> None:
        """Take those that are there already; else make a UNIX socket if there is a path; else bind ports.

        Raises UsageError or ServerUnavailable when it can't listen there.
        """
        self._unix = None
        if inherited.sockets:
            self._sockets = adopt(list(inherited.sockets))
            if path is not None and inherited.name is not None:
                self._unix = unix.adopt(path, self._sockets[0], inherited.name)
        elif path is not None:
            self._unix = unix(path)
            self._sockets = [self._unix.socket]
        else:
            self._sockets = bind()

    def _make_again(self, make: Callable[..., None], news: dict[str, Any]) -> None:
        """Call the constructor `make` again if there are new parameters, which go before the earlier ones."""
        if news:
            self.close()
            make(self, **{**self._made_with, **news})

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        if self._unix is not None:
            self._unix.close()
