"""Finding the process that listens on a port of this host, in Linux's /proc (proc(5): net/tcp, net/udp, fd)."""

from __future__ import annotations

import os
import socket
from typing import NamedTuple, Optional

# States in hexadecimal: TCP_LISTEN, and TCP_CLOSE, which a UDP socket has that is not connected.
_LISTENING = {"tcp": "0A", "udp": "07"}


class ListeningPort(NamedTuple):
    """A socket on the port: its address, and its process, if that can be seen."""

    address: str
    pid: Optional[int] = None
    name: str = ""

    @property
    def ask_at(self) -> str:
        """The address to which a client of this host connects."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address, self.address)

    def __str__(self) -> str:
        if self.pid is None:
            return f"a process that can't be seen, at {self.address} (root sees which)"
        return f"process {self.pid} ({self.name}) at {self.address}"


def listeners(protocol: str, port: int) -> list[ListeningPort] | None:
    """Find the sockets on a port of "tcp" or "udp"; None where the system does not show them."""
    sockets: dict[int, str] = {}
    told = False
    for version in ("", "6"):
        try:
            with open(f"/proc/self/net/{protocol}{version}") as file:
                sockets.update(listening(file.read(), protocol, port))
            told = True
        except OSError:  # no IPv6 here, or no Linux
            continue
    if not told:
        return None
    owners = _owners(set(sockets)) if sockets else {}
    return [ListeningPort(address, *owners.get(inode, (None, ""))) for inode, address in sockets.items()]


def listening(table: str, protocol: str, port: int) -> dict[int, str]:
    """Find the sockets on a port in a table of /proc/net: the address of each, by its inode."""
    found = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10:
            continue
        address, _, number = fields[1].rpartition(":")
        if int(number, 16) == port and fields[3] == _LISTENING[protocol]:
            found[int(fields[9])] = written(address)
    return found


def written(address: str) -> str:
    """Turn the kernel's address, 32-bit words in the machine's byte order, into the form that people write."""
    words = [bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words))


def _owners(inodes: set[int]) -> dict[int, tuple[int, str]]:
    """Find the process that has each of these sockets open, as far as it can be seen; the one with the last number."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                link = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                if link in wanted:
                    owners[wanted[link]] = (int(pid), _name(pid))
        except OSError:  # somebody else's, or gone meanwhile
            continue
    return owners


def _name(pid: str) -> str:
    """Name a process: a Python program by its script, and one of ours by its tool, too."""
    with open(f"/proc/{pid}/comm") as file:
        name = file.read().strip()
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = [os.fsdecode(word) for word in file.read().split(b"\0") if word]
    if words and os.path.basename(words[0]).startswith("python") and "-c" not in words:
        script = next((place for place in range(1, len(words)) if not words[place].startswith("-")), 0)
        if script:
            name = os.path.basename(words[script])
            name += f" {words[script + 1]}" if name.startswith("ipclocker") and len(words) > script + 1 else ""
    return "".join(sign if sign.isprintable() else "?" for sign in name)[:60]  # its owner can choose any bytes
