"""A term: the time for which a server serves its lock space, from the locks that were kept to the end.

Most servers have one term, from their start to their close. One of several that share a store has one each time that
it leads, and between two of them it serves nobody.

Nearly all clients come with one request, get one answer and are gone: they are served as soon as they are accepted,
and the loop never hears of them. A client that stays (because it waits, or keeps its connection) becomes a
ClientConnection.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable
from functools import partial
from math import inf
from typing import Callable

from ...errors import StateError
from ...net.address import service_port
from ...net.loop import READ, Loop
from ...net.text import decode_text
from ...net.transport import DONTWAIT, PIECE
from ..model import Grant, HolderProcess, LockRequest
from ..storage.base import Store, StoredState
from ..wire import replies
from . import lock_modes
from .acceptor import Acceptor
from .client_list import ClientList
from .client_place import PlaceNamer
from .connection import ClientConnection, Newcomer, warn_classic
from .effects import BeforeImages
from .followed_processes import FollowedProcesses
from .group_commit import RETRY, GroupCommit
from .holder_monitor import HolderMonitor
from .request_handler import RequestHandler
from .service import LockService
from .table import RESERVED

DEFAULT_PID_PORT = 1752
_SLICE = 10_000  # locks that are restored at a time: a tenth of a second

log = logging.getLogger(__name__)


class ServingTerm:
    """Serves the clients that come to `sockets` from `begin` to `close` or `abandon`. All in turns of the loop.

    `kept` is what was in the `store`; without one, locks live in memory. `space_lines` tells which lock space it is.
    `idle_timeout`, `last_token` as for LockServer and LockTable. `lost` is called with what is wrong, once, when others
    serve in its place; it is abandoned then. `lives` is called now and then while it is made, which may take long.
    Raises StateError for a damaged state.
    """

    def __init__(
        self,
        loop: Loop,
        sockets: Iterable[socket.socket],
        idle_timeout: float,
        last_token: int,
        space_lines: Callable[[], bytes],
        store: Store | None = None,
        kept: StoredState | None = None,
        lost: Callable[[Exception], None] = lambda problem: None,
        lives: Callable[[], None] = lambda: None,
    ) -> None:
        pid_port = service_port("pidstatd", "udp", DEFAULT_PID_PORT)
        self._loop = loop
        self._holder_monitor = HolderMonitor(loop, pid_port, self._process_gone)
        self._followed = FollowedProcesses(loop, self._holder_monitor)
        self.service = LockService(
            self._followed.note,
            self._on_suspect,
            self._on_overdue,
            self._holder_monitor.note_heard,
            last_token=max(time.time_ns() // 1000, last_token),
        )
        self.service.started = time.time()
        self.service.space_lines = space_lines
        self.clients = ClientList(idle_timeout)
        self._newcomer = Newcomer()
        # For a client's address, which is kept as well: what is shared is read on other hosts.
        self._place_of = PlaceNamer().place_of if store is not None and store.is_shared else str
        self._acceptor = Acceptor(loop, sockets, self._serve_newcomer, self.clients)
        self._is_serving = False  # to its end: then clients go because it ends, which says nothing about them
        self.group_commit: GroupCommit | None = None
        if store is not None and kept is not None:
            try:
                self._restore(store, kept, lost, lives)
            except BaseException:
                self._holder_monitor.close()
                raise

    def _restore(
        self, store: Store, kept: StoredState, lost: Callable[[Exception], None], lives: Callable[[], None]
    ) -> None:
        overfull = lock_modes.overfull(grant for grant in kept.grants if (grant.user, grant.session) != RESERVED)
        if overfull is not None:
            raise StateError(
                f"the state in {store.location} is damaged, since the lock '{decode_text(overfull)}' has more holders "
                "than it may have: move it away, or bring back a copy of it"
            )
        table = self.service.table
        for start in range(0, len(kept.grants), _SLICE):
            now = time.monotonic()
            table.restore(kept.grants[start : start + _SLICE], now, time.time() - now)
            lives()
        # The counter goes on where it was; a file that was lost, or an old copy, must not give a number twice.
        table.last_token = max(table.last_token, kept.last_token)
        self._followed.note(table.grants)
        self.group_commit = GroupCommit(
            store, table, self._loop, self._on_rolled_back, self._holder_monitor.report_again, lost
        )
        self.service.is_durable = self.group_commit.is_durable
        self.service.record = self.group_commit.record

    def begin(self) -> None:
        """Serve those who come, from now on."""
        self._is_serving = True
        self._acceptor.start()

    def stop_accepting(self) -> None:
        """Leave those who come from now on to the next server."""
        self._acceptor.close()

    def stop_reading(self) -> None:
        """Serve what has come since the last turn, and nothing more: a classic LOCK dropped unread counts as granted.

        Then what was done is kept, and those who wait for that are told; who has come meanwhile is told the end.
        """
        if not self._is_serving:
            return
        self._acceptor.serve_what_has_come()
        for client in self.clients:
            client.on_ready(READ)
        self._acceptor.stop()
        if self.group_commit is not None:
            self.group_commit.drain()
        self._acceptor.turn_away(replies.error(b"server_ended"))
        self._acceptor.close()

    def close(self) -> None:
        """Cut the clients off, and keep what changes by that; `stop_reading` comes before, then the sockets' close."""
        self._is_serving = False
        for client in self.clients:
            client.end(b"server_ended")
        if self.group_commit is not None:
            self.group_commit.close()
        self._holder_monitor.close()

    def abandon(self) -> None:
        """Cut the clients off, keep nothing and tell nobody anything but this: others serve in this one's place.

        Who has asked and can't be answered, and is classic, is told: it would take the end for a grant.
        """
        if self.group_commit is not None:
            self.group_commit.abandon()
        if self._is_serving:
            self._acceptor.serve_what_has_come()
            for client in self.clients:
                client.on_ready(READ)
        self._acceptor.stop()
        self._is_serving = False
        for client in self.clients:
            client.end(b"not_leader")
        self._holder_monitor.close()
        self._acceptor.turn_away(replies.error(b"not_leader"))
        self._acceptor.close()

    def tick(self, now: float) -> float:
        """Do what is due; return when it is due next."""
        table = self.service.table
        group_commit = self.group_commit
        if group_commit is not None and group_commit.failing:
            next_expiry = inf  # nothing ends while its end can't be kept
        else:
            if table.next_expiry <= now:
                self._expire(now)
            next_expiry = table.next_expiry
        if group_commit is not None:
            next_expiry = min(next_expiry, group_commit.flush(now))
            if table.grants or group_commit.needs_rounds:
                next_expiry = min(next_expiry, group_commit.touch(now))
        next_follow = self._followed.tick(now, table.grants)
        return min(next_expiry, self._holder_monitor.tick(now), next_follow, self.clients.tick(now))

    # New clients

    def _serve_newcomer(self, sock: socket.SocketType, host: str) -> None:
        """Serve a client as soon as it is accepted; it becomes a ClientConnection if that is not all.

        This way costs a third less than that of a connection, which has to be made and taken apart again. An answer
        that may have to wait for the disk goes through ClientConnection.flush, as all others do.
        """
        self._newcomer.sock = sock
        handler = RequestHandler(self.service, self._newcomer, self._place_of(host))
        try:
            data = sock.recv(PIECE, DONTWAIT)
            if not data:
                sock.close()
                return
            # The time is taken behind the read: a lease counts from when its renewal was sent, so not from before.
            handler.receive(data, time.monotonic())
            commit = self.group_commit
            waits = handler.reveals_uncommitted or (handler.claims_hold and commit is not None and commit.needs_rounds)
            if handler.closing and (commit is None or not waits):
                answer = b"".join(handler.output)
                sent = sock.send(answer, DONTWAIT)
                if sent == len(answer):
                    sock.close()
                    if handler.subscriptions:
                        self.service.unsubscribe(handler)
                    return
                handler.output = [answer[sent:]]
        except BlockingIOError:
            pass  # it has said nothing yet, or takes nothing yet
        except OSError:
            handler.on_disconnect(self._loop.now)
            sock.close()
            return
        except Exception:
            log.exception("a request could not be served")  # a fault of ours costs one client its connection
            warn_classic(sock, handler, b"internal")
            handler.on_disconnect(self._loop.now)
            sock.close()
            return
        client = ClientConnection(
            self._loop, sock, handler, self.group_commit, self._holder_monitor, self._on_client_closed
        )
        self.clients.add(client, self._loop.now)
        client.flush()

    def _on_client_closed(self, client: ClientConnection) -> None:
        """With the descriptor of a client that was closed, another one may be let in."""
        self.clients.discard(client)
        if client.holder is not None and self._is_serving:
            heard = self._holder_monitor.silent_since(client.holder)
            if heard is not None:
                self.service.apply(self.service.table.mark_silent(client.holder, heard))
        self._acceptor.start()

    # Changes

    def _on_rolled_back(self, images: BeforeImages, returned: list[LockRequest], stranded: list[LockRequest]) -> None:
        self._followed.note(images)
        self.service.now = self._loop.now
        self.service.return_to_queue(returned)
        self.service.fail_waiters(stranded)

    # Holds that end, and holders that are gone

    def _expire(self, now: float) -> None:
        for grant in self.service.expire(now).ended:
            log.info("lock %s was taken from %s: its time was up", *map(decode_text, (grant.name, grant.user)))

    def _on_overdue(self, grant: Grant) -> None:
        """Look whether the process of a lease that has run out lives."""
        assert grant.process is not None
        self._followed.follow(self.service.table.grants)  # who is looked at has to be known
        self._holder_monitor.check_now(grant.process, partial(self._on_checked, grant))

    def _on_checked(self, grant: Grant, lives: bool | None) -> None:
        if not self._is_serving:
            return
        if self.group_commit is not None and self.group_commit.failing:
            self._loop.call_at(self._loop.now + RETRY, lambda: self._on_checked(grant, lives))
            return
        name, user = decode_text(grant.name), decode_text(grant.user)
        if lives:
            self.service.apply(self.service.table.mark_holder_alive(grant))
            log.warning("the lease of lock %s has run out, but the process of %s lives: it stays held", name, user)
        elif self.service.expire_overdue(grant, self._loop.now).ended:
            log.warning("lock %s was taken from %s: its lease has run out", name, user)

    def _on_suspect(self, process: HolderProcess) -> None:
        if not self._is_serving:  # its sockets are closed by now, and a pidfd might get the number of one of them
            return
        self._followed.follow(self.service.table.grants)
        self._holder_monitor.check_soon(process)

    def _process_gone(self, process: HolderProcess) -> None:
        if not self._is_serving:
            return
        if self.group_commit is not None and self.group_commit.failing:
            self._loop.call_at(self._loop.now + RETRY, lambda: self._process_gone(process))
            return
        for grant in self.service.release_of(process, self._loop.now).ended:
            name, host = decode_text(grant.name), decode_text(process.host)
            log.info("lock %s is free: process %d on %s, which held it, is gone", name, process.pid, host)
