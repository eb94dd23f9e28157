"""The probes of this host: they find the facts that checks.py judges."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import socket
import sys
import time
from typing import Any

from ..daemon.state_dir import default_state_folder
from ..errors import IpclockerError, ServerUnavailable
from ..lock.client.connection import wait_until
from ..lock.client.locker import Locker, PingStatus
from ..lock.client.ping import ping_hosts
from ..lock.client.settings import LockSettings, host_names
from ..lock.endpoint import endpoint
from ..lock.snapshot import HostState
from ..lock.storage.etcd_settings import EtcdSettings
from ..net.address import Host, find_addresses, own_host_name
from ..pid.client import PidStat
from ..pid.endpoint import pid_endpoint
from ..process.viewpoint import own_view
from .etcd_probe import EtcdFacts, ask_etcd
from .listening_ports import ListeningPort, listeners

_PATIENCE = 5.0  # seconds for an answer of a server
_TIME_ERROR = 5  # TIME_ERROR of adjtimex(2): no time service keeps the clock right


class ThisHost:
    """The facts about this host; `host` and the ports are as the tools' options have them.

    Each method may raise OSError, and may block.
    """

    def __init__(
        self,
        host: str | None = None,
        port: str | None = None,
        pid_port: str | None = None,
        etcd: EtcdSettings | None = None,
    ) -> None:
        """Find the places of the servers. Raises UsageError."""
        self._etcd = etcd
        self._lockerds = {host.name: host for host in host_names(host)}  # as tools would ask them
        self.hosts = list(self._lockerds)
        # They were named by an option or the environment; else it is this host.
        self.named = bool(host or os.environ.get("IPCLOCKER_HOST"))
        self._port = port
        self._pid_port = pid_port
        self._ports = {"lockerd": endpoint(port).port, "pidstatd": pid_endpoint(pid_port).port}

    def python(self) -> tuple[tuple[int, int, int], str, bool]:
        """Get the interpreter's version and file, and True if it was started isolated."""
        return sys.version_info[:3], sys.executable, bool(sys.flags.isolated and sys.flags.no_site)

    def cache(self) -> tuple[str | None, list[str]]:
        """Get the folder of the compiled modules ("" without a built file, None for nowhere), and the possible ones."""
        finder: Any  # one of them is the pack, which imports all that is ours
        for finder in sys.meta_path:
            if hasattr(finder, "folders"):
                return finder.folder, finder.folders
        return "", []

    def listeners(self, service: str) -> tuple[int, list[ListeningPort] | None]:
        """Get the port of `lockerd` or `pidstatd` (0: it is a UNIX socket), and its sockets; None if unknown."""
        port = self._ports[service]
        return port, listeners("tcp" if service == "lockerd" else "udp", port) if port else None

    def lockerd(self, host: str) -> PingStatus:
        """Ask a host's lock server."""
        wait = wait_until(time.monotonic() + _PATIENCE)
        locker = Locker(
            wait_ready=wait, host=str(self._lockerds.get(host) or Host(host)), port=self._port, connect_tries=1
        )
        status: PingStatus = locker.ping_status()
        return status

    def lock_hosts(self) -> list[HostState]:
        """Ask all lock servers which of them serves, and what."""
        hosts = [str(host) for host in self._lockerds.values()]
        return ping_hosts(LockSettings(host=hosts, port=self._port, connect_tries=1), _PATIENCE)

    def etcd(self) -> EtcdFacts | None:
        """Ask etcd; None if the options name none."""
        return None if self._etcd is None else ask_etcd(self._etcd)

    def pidstatd(self, host: str) -> PingStatus:
        """Ask a host's pid server."""
        with PidStat(host, self._pid_port, tries=int(_PATIENCE)) as stat:
            try:
                return stat.ping_status()
            except IpclockerError as error:
                return {"ok": False, "status": str(error)}

    def host_name(self) -> str:
        """Get the host's own name."""
        return own_host_name()

    def addresses(self, name: str) -> list[str]:
        """Look up the addresses of a name. Raises OSError if it has none."""
        try:
            found = find_addresses(name, 0, socket.SOCK_DGRAM)
        except ServerUnavailable as error:
            raise OSError(str(error)) from None
        return list(dict.fromkeys(str(address.sockaddr[0]) for address in found))

    def names(self, address: str) -> list[str]:
        """Look up the names of an address."""
        try:
            name, others, _ = socket.gethostbyaddr(address)
        except OSError:
            return []
        return [name, *others]

    def is_own_address(self, address: str) -> bool:
        """Return True if it is an address of this host."""
        host = socket.getaddrinfo(address, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(host[0], socket.SOCK_DGRAM) as sock:
            try:
                sock.bind(host[4])
            except OSError:
                return False
        return True

    def pidfd(self) -> str:
        """Get the reason why pidfds do not work; "" if they do."""
        if not hasattr(os, "pidfd_open"):
            return "this Python does not know them"
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def clocks(self) -> tuple[float, float, float]:
        """Read the wall, monotonic and boot clocks, in seconds, in this order."""
        monotonic = time.monotonic()
        boot = getattr(time, "CLOCK_BOOTTIME", None)
        return time.time(), monotonic, time.monotonic() if boot is None else time.clock_gettime(boot)

    def synchronised(self) -> bool | None:
        """Return True if a time service keeps the wall clock right; None if that is unknown."""
        try:
            adjtimex = ctypes.CDLL(None).adjtimex
        except (OSError, AttributeError):
            return None
        state = adjtimex(ctypes.create_string_buffer(512))  # a struct timex of zeros, which is shorter, only asks
        return None if state < 0 else state != _TIME_ERROR

    def namespace(self) -> str:
        """Get the pid namespace: "host", "own", or "unknown"."""
        view = own_view()
        if view.pidns is None:
            return "unknown"
        return "host" if view.sees_whole_host else "own"

    def descriptors(self) -> tuple[int, int]:
        """Get the soft and the hard limit of descriptors."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    def state_folder(self) -> tuple[str, str, str]:
        """Get the folder, the kind of its file system, and the reason why it can't be written ("" if it can)."""
        folder = default_state_folder()
        there = existing_parent(folder)
        if not os.path.isdir(there):
            why = f"{there} is no folder"
        elif os.access(there, os.W_OK | os.X_OK):
            why = ""
        else:
            why = "it may not be written by this user" if there == folder else f"it can't be made in {there}"
        return folder, file_system(there), why


def file_system(path: str) -> str:
    """Find the kind of file system that a path is on, such as ext4 or nfs4; "" where the system does not show it."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return kind_of(os.path.realpath(path), file.read())
    except OSError:
        return ""


def kind_of(path: str, mounts: str) -> str:
    """Find the file system at a path in a mountinfo table (proc(5)): the last of the deepest mounts."""
    best, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])  # \040 is a blank
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def existing_parent(path: str) -> str:
    """Return the folder itself, or the nearest one above it that is there."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path
