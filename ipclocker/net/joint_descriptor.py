"""One descriptor in place of several, for a program's own select loop, which takes one of each object."""

from __future__ import annotations

import select
import socket
from types import ModuleType

from ..errors import UsageError


class JointDescriptor:
    """A descriptor that is readable while any of some sockets is: close it before them."""

    def __init__(self, *sockets: socket.socket) -> None:
        """Raises UsageError if this system has no such descriptors."""
        own = select if hasattr(select, "epoll") or hasattr(select, "kqueue") else _select_as_it_was()
        if hasattr(own, "epoll"):
            self._joint = own.epoll()
            for sock in sockets:
                self._joint.register(sock, own.EPOLLIN)
        elif hasattr(own, "kqueue"):
            self._joint = own.kqueue()
            self._joint.control([own.kevent(sock, own.KQ_FILTER_READ, own.KQ_EV_ADD) for sock in sockets], 0, 0)
        else:
            raise UsageError("fileno needs epoll or kqueue, and this system has neither: wait in a thread instead")

    def fileno(self) -> int:
        """Return the descriptor."""
        return int(self._joint.fileno())

    def close(self) -> None:
        """Close it; the sockets stay open."""
        self._joint.close()


def _select_as_it_was() -> ModuleType:
    """Return another copy of the module `select`, with what gevent and eventlet have taken out of the one that all use.

    They do so since waiting by epoll holds up all of their threads. Here nothing waits: the descriptor is for their
    own ways to wait.
    """
    from importlib.util import find_spec, module_from_spec

    spec = find_spec("select")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
