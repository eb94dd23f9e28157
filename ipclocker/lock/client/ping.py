"""Asking each of the listed lock servers whether it serves.

One of several that share a lock space refuses clients as long as it stands by. So it is a member, named by the one that
serves, which tells it from a host without a server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from errno import ECONNREFUSED
from queue import Empty, SimpleQueue
from socket import SOCK_STREAM
from threading import Thread
from typing import NamedTuple, Optional

from ...errors import IpclockerError, ServerUnavailable
from ...net.address import Host, find_addresses, split_hosts
from ...net.text import decode_text
from ..snapshot import SERVES, SILENT, STANDS_BY, HostState, Ping
from ..wire.replies import Answer, Space
from .connection import ConnectionLost, DeadlineExceeded, prompt_answer, wait_until
from .connector import ServerConnector
from .settings import LockSettings

PATIENCE = 10.0  # seconds for all servers together, which are asked at once
_FOR_OTHERS = 3.0  # seconds that the others get when one has answered


class _Found(NamedTuple):
    """What came of asking one server."""

    host: Host
    ping: Optional[Ping] = None
    space: Optional[Space] = None
    reasons: tuple[str, ...] = ("no answer in time",)

    @property
    def refuses(self) -> bool:
        """True if the host is there, and nobody listens."""
        refused = os.strerror(ECONNREFUSED)
        return self.ping is None and bool(self.reasons) and all(reason.endswith(refused) for reason in self.reasons)


def ping_hosts(settings: LockSettings, within: float = PATIENCE) -> list[HostState]:
    """Ask each of the servers for its version; what they are, in their order.

    It takes `within` seconds at most, and less when one serves.
    """
    servers = settings.servers()
    found: dict[int, _Found] = {}
    until = time.monotonic() + within
    if len(servers) == 1:
        found[0] = _ask(settings, servers[0], until)
    else:
        told: SimpleQueue[tuple[int, _Found]] = SimpleQueue()

        def ask(number: int, until: float) -> None:
            told.put((number, _ask(settings, servers[number], until)))

        for number in range(len(servers)):
            Thread(target=ask, args=(number, until), daemon=True).start()
        with suppress(Empty):
            while len(found) < len(servers):
                number, one = told.get(timeout=max(0.0, until - time.monotonic()))
                found[number] = one
                if one.ping is not None:
                    until = min(until, time.monotonic() + _FOR_OTHERS)
    every = [found.get(number, _Found(server)) for number, server in enumerate(servers)]
    spaces = [one.space for one in every if one.space is not None and one.space.ttl is not None]
    return [_state(one, spaces, settings) for one in every]


def serving(states: Iterable[HostState]) -> HostState:
    """Return the first that serves. Raises ServerUnavailable."""
    problems = []
    for state in states:
        if state.ping is not None:
            return state
        problems.append(state.problem)
    raise ServerUnavailable(f"no lock server answers ({'; '.join(problems)}): start lockerd there, or name its host")


def _ask(settings: LockSettings, host: Host, until: float) -> _Found:
    if settings.endpoint.path is None:
        settings = settings.changed(host=str(host))
    begin = time.monotonic()
    connector = ServerConnector(settings, wait_until(until))
    connector.latest = until
    try:
        for connection in connector.each_server(until, once=True):
            try:
                connection.send_request(b"VERSION", space=1)
                answer = prompt_answer(connection, deadline=until)
            except ConnectionLost as problem:
                connector.reasons.append(f"{connection.address}: {problem.strerror}")
                continue
            finally:
                connection.close()
            return _Found(host, _pong(connector.server, time.monotonic() - begin, answer), connection.space)
    except DeadlineExceeded:
        connector.reasons.append(f"{connector.server}: no answer in time")
    except IpclockerError as problem:
        if not connector.reasons:
            connector.reasons.append(str(problem))
    return _Found(host, reasons=tuple(connector.reasons))


def _pong(server: str, seconds: float, answer: Answer) -> Ping:
    version = (answer.version or b"").decode("utf-8", "backslashreplace")
    number, _, started = version.rpartition(" ")
    is_time = started.isascii() and started.isdigit() and len(started) <= 11
    return Ping(server, seconds, number if is_time else version, float(started) if is_time else None)


def _state(found: _Found, spaces: Iterable[Space], settings: LockSettings) -> HostState:
    if found.ping is not None:
        space = found.space or Space(b"")
        identity = decode_text(space.identity)
        return HostState(found.ping.server, SERVES, found.ping, "", identity, space.ttl is not None)
    server = _place(found.host, settings)
    problem = "; ".join(found.reasons)
    if found.refuses:
        for space in spaces:
            if _is_member(found.host, space, settings):
                return HostState(server, STANDS_BY, None, problem, decode_text(space.identity), True)
    return HostState(server, SILENT, None, problem)


def _place(host: Host, settings: LockSettings) -> str:
    """Name a server as the address of one that answers is written."""
    if settings.endpoint.path is not None:
        return host.name
    name = f"[{host.name}]" if ":" in host.name else host.name
    return f"{name}:{settings.endpoint.port if host.port is None else host.port}"


def _is_member(host: Host, space: Space, settings: LockSettings) -> bool:
    """Tell whether a host is one of those that may serve a lock space, by one of its addresses."""
    own = {str(address) for address in settings.addresses(host)}
    for _, addresses in space.members:
        for address in map(decode_text, addresses):
            try:
                [member] = split_hosts(_bracketed(address))
                if own & {str(found) for found in find_addresses(member.name, member.port or 0, SOCK_STREAM)}:
                    return True
            except (IpclockerError, ValueError):
                continue  # what can't be read or found names no host of ours
    return False


def _bracketed(address: str) -> str:
    """Return HOST:PORT as a list of hosts has it, with the host in brackets."""
    host, _, port = address.rpartition(":")
    return f"[{host.strip('[]')}]:{port}"
