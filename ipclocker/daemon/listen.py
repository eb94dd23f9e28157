"""Sockets that a server listens on: bound to addresses, or to a UNIX socket's name, and given back at the end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import socket
import stat
import time
from pathlib import Path

from ..errors import UsageError
from .address import Address, find_addresses, socket_path

_BACKLOG = 4096  # connections that may wait to be accepted; the kernel lowers it to its own bound
# Where the system has them. A client whose host went away without a word is noticed within a minute; one that
# has said nothing yet is not worth a wake-up (the kernel hands it over after a second all the same).
_TCP_OPTIONS = (
    ("TCP_KEEPIDLE", 30),
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 60_000),
    ("TCP_DEFER_ACCEPT", 1),
)
_STREAM, _UNIX = int(socket.SOCK_STREAM), int(socket.AF_UNIX)
_LOCK_WITHIN = 5.0  # seconds to wait for another server that is starting in the same folder


def tcp_listeners(hosts: list[str], port: int) -> list[socket.socket]:
    """Listen on a port of each host, which may be a name or an address; port 0 takes one that is free.

    What a host name stands for twice, or what this system has not (an IPv6 loopback), is left out as long as one
    address remains. Raises ServerUnavailable (host not known) or UsageError (the port is taken, not allowed).
    """
    listeners: list[socket.socket] = []
    try:
        for host in hosts:
            failure = None
            before = len(listeners)
            for address in find_addresses(host, port, socket.SOCK_STREAM):
                if port == 0 and listeners:
                    address = _with_port(address, listeners[0].getsockname()[1])
                try:
                    listeners.append(_listen(address))
                except OSError as error:
                    failure = UsageError(f"cannot listen on {address}: {error.strerror}{_advice(error)}")
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        raise failure from None
            if failure is not None and len(listeners) == before:
                raise failure
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _with_port(address: Address, port: int) -> Address:
    return Address(address.family, (address.sockaddr[0], port, *address.sockaddr[2:]))


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return " (another server has it: end that one, or choose another with --port)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return " (ports below 1024 are the system's: choose another with --port)"
    if error.errno == errno.EADDRNOTAVAIL:
        return " (it is no address of this host: choose another with --host)"
    return ""


def _listen(address: Address) -> socket.socket:
    listener = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Set once here, these pass to each connection accepted. Answers are not held back to be sent together.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _TCP_OPTIONS:
            if hasattr(socket, name):
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        listener.bind(address.sockaddr)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors, so as many clients, as the system allows it to allow itself."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def accept(listener: socket.socket, family: int) -> tuple[socket.SocketType, str]:
    """The next connection of a listener of this family, and the host that it is from (empty for UNIX sockets).

    This is socket.accept without its wrapping in Python, which costs as much as all that is done for a request:
    asking the listener for its family, a property, is half a microsecond. Raises OSError.
    """
    number, address = listener._accept()  # type: ignore[attr-defined]
    return socket.SocketType(family, _STREAM, 0, number), address[0] if family != _UNIX else ""


class UnixListener:
    """A listening UNIX socket that owns its name in the file system."""

    def __init__(self, path: str) -> None:
        """Listen on `path`, in place of a socket there that no server answers any more.

        Raises UsageError if the name is taken by a server that lives or by a file of another kind, or if it
        can't be made.
        """
        self.path = path
        address = socket_path(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _folder_locked(path):
                _remove_dead_socket(path)
                self.socket.bind(address.sockaddr)
                self._identity = _identity(path)
            # As a port of this host is: who may connect is for the permissions of its folder to say.
            Path(path).chmod(0o666)
            self.socket.listen(_BACKLOG)
            self.socket.setblocking(False)
        except OSError as error:
            self.socket.close()
            raise UsageError(
                f"cannot listen on the UNIX socket '{path}': {error.strerror} (choose another with --path)"
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


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino


def _remove_dead_socket(path: str) -> None:
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"cannot listen on '{path}': it is a file, and no socket (choose another with --path)")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except BlockingIOError:
            pass  # its queue is full, so there is a server
    raise UsageError(
        f"cannot listen on '{path}': another server answers there (end that one, or choose another with --path)"
    )


@contextlib.contextmanager
def _folder_locked(path: str):  # type: ignore[no-untyped-def]
    """Let one server at a time look at a name in this folder and take it, so that two can't both replace it."""
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_WITHIN
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UsageError(f"cannot listen on '{path}': its folder is locked by another process") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(folder)
