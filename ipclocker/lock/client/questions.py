"""The questions that a Locker asks a lock server, which need no lock: who holds what, and whether a server answers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Callable, Optional, Protocol, TypedDict, TypeVar, Union

from ...errors import IpclockerError, ServerUnavailable, UsageError
from ...net.text import decode_text
from ...parameters import UNCHANGED, given
from ...process.identity import parse_pid
from .class_calls import AlsoOnClass
from .connection import Wait
from .listener import LockerListener
from .locker_times import ONE_TRY
from .query import Asked, query
from .settings import LockSettings, Message, host_word, lock_names

Result = TypeVar("Result")
Told = TypeVar("Told", covariant=True)
Questions = TypeVar("Questions", bound="LockerQuestions")
Names = Union[str, Iterable[str]]
MAX_TOKEN = 2**63 - 1  # what a server reads


class PingStatus(TypedDict):
    """The result of a ping: `ok` is True if a lock server answers; `status` says how fast, or what is wrong."""

    ok: bool
    status: str


# As type checkers see the calls on the class: the parameters of a Locker that say which servers are asked, and how.


class _OnClass(Protocol[Told]):
    def __call__(
        self,
        *,
        host: Union[str, Iterable[str], None] = ...,
        port: Union[str, int, None] = ...,
        family: str = ...,
        path: Optional[str] = ...,
        connect_tries: int = ...,
        connect_delay: float = ...,
        verbose: bool = ...,
        print_down: Optional[Message] = ...,
        print_retry: Optional[Message] = ...,
        wait_ready: Wait = ...,
    ) -> Told: ...


class _CheckOnClass(Protocol):
    def __call__(
        self,
        name: str,
        token: int,
        *,
        host: Union[str, Iterable[str], None] = ...,
        port: Union[str, int, None] = ...,
        family: str = ...,
        path: Optional[str] = ...,
        connect_tries: int = ...,
        connect_delay: float = ...,
        verbose: bool = ...,
        print_down: Optional[Message] = ...,
        print_retry: Optional[Message] = ...,
        wait_ready: Wait = ...,
    ) -> bool: ...


class LockerQuestions:
    """Asks the servers of its settings. If `print_down` is given, that is called when none answers."""

    def __init__(self, settings: LockSettings, wait_ready: Wait, suffix: str) -> None:
        self.settings = settings
        self._wait_ready = wait_ready
        self._suffix = suffix

    def _check(self, name: str, token: int) -> bool:
        """Ask whether the grant of that name with that token still stands, so that its holder may go on.

        It takes 5 s at most, at all hosts together. Raises ServerUnavailable, also if the server knows no tokens,
        ServerRefused, UsageError.
        """
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token <= MAX_TOKEN:
            raise UsageError(f"token is {token!r}: it takes a whole number, as Locker.token gives it")
        # A server that knows no tokens skips the first command and answers the second.
        asked = self._query(b"CHECK %b %d\nVERSION" % (lock_names(name)[0], token), ONE_TRY)
        if asked.answer.version is not None:
            raise ServerUnavailable(f"the lock server {asked.server} knows no tokens: use one of this release")
        return bool(asked.answer.current)

    def _ping(self) -> bool:
        """Return True if a lock server answers, within 5 s at all hosts together."""
        return self._ping_status()["ok"]

    def _ping_status(self) -> PingStatus:
        """Ask a lock server for its version, and say how fast it answers, or what is wrong; raises nothing.

        It takes 5 s at most, at all hosts together.
        """
        start = time.monotonic()
        try:
            server = self._query(b"VERSION", ONE_TRY).server
        except IpclockerError as error:
            if isinstance(error, ServerUnavailable):
                self._tell_down()
            return {"ok": False, "status": str(error)}
        return {"ok": True, "status": f"{time.monotonic() - start:.3f} second response on {server}"}

    # Called on the class, they are called on a Locker that tries once.
    check = AlsoOnClass[Callable[[str, int], bool], _CheckOnClass](_check, connect_tries=1)
    ping = AlsoOnClass[Callable[[], bool], _OnClass[bool]](_ping, connect_tries=1)
    ping_status = AlsoOnClass[Callable[[], PingStatus], _OnClass[PingStatus]](_ping_status, connect_tries=1)

    def break_lock(self: Questions) -> Questions:
        """Free the lock even if another one holds it.

        It takes 5 s at most, at all hosts together. If the server is lost before its answer no other one is asked: that
        might take the lock from the next holder. Raises ServerUnavailable, ServerRefused.
        """
        self._unless_down(lambda: self._query(b"BREAK_LOCK", ONE_TRY, once=True), None)
        return self

    def owner(
        self,
        lock: Names = UNCHANGED,
        *,
        host: Optional[Names] = UNCHANGED,
        port: Union[str, int, None] = UNCHANGED,
        family: str = UNCHANGED,
        path: Optional[str] = UNCHANGED,
        user: Optional[str] = UNCHANGED,
    ) -> Optional[str]:
        """Ask for the holder of the lock, None if it is free; it may be another one by the time that you read it.

        The parameters are those of the constructor, for this question alone. It takes 5 s at most, at all hosts
        together. Raises ServerUnavailable, ServerRefused, UsageError.
        """
        settings = self.settings.changed(**given(locals()))
        found = self._unless_down(lambda: self._query(b"STATUS", ONE_TRY, settings), None)
        return decode_text(found.answer.owner) or None if found else None

    def lock_list(self) -> list[tuple[str, str]]:
        """The name and the owner of each lock that is held on the server; in 5 s at most, at all hosts together."""
        found = self._unless_down(lambda: self._query(b"LOCK_LIST", ONE_TRY), None)
        return [(decode_text(name), decode_text(owner)) for name, owner in found.answer.locks] if found else []

    def dead_pid(self, host: str, pid: Union[int, str]) -> None:
        """Report to the server that a process of a host is gone; it frees the process's locks if it can believe it.

        It takes 5 s at most, at all hosts together. Raises ServerUnavailable, ServerRefused, UsageError.
        """
        command = b"DEAD_PID %b %d\nVERSION" % (host_word(host), parse_pid(pid))
        # The command has no answer of its own. One that has comes behind it, so that it is done on return.
        self._unless_down(lambda: self._query(command, ONE_TRY), None)

    # Inside

    def _tell_down(self) -> None:
        if self.settings.print_down is not None:
            self.settings.print_down(self)

    def _unless_down(self, request: Callable[[], Result], otherwise: Optional[Result]) -> Optional[Result]:
        """Return the result of a request; `otherwise` if no server answers and there is a `print_down` to say so."""
        try:
            return request()
        except ServerUnavailable:
            if self.settings.print_down is None:
                raise
            self._tell_down()
            return otherwise

    def _query(
        self, command: bytes, within: float, settings: Optional[LockSettings] = None, once: bool = False
    ) -> Asked:
        listener = LockerListener(self)
        return query(
            settings or self.settings,
            command,
            wait=self._wait_ready,
            retry=listener.retry,
            on_broken=listener.broke,
            suffix=self._suffix,
            within=within,
            once=once,
        )
