"""A client of etcd's JSON gateway that asks one member after the other until one gives a definite answer.

An error of etcd's says by its gRPC code whether the request was refused for good. All others (and a lost connection, a
time-out) leave it open: what was asked for may have been done, or may still be done when a quorum is back.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from math import inf
from typing import Any

from ...errors import OUTPUT, IpclockerError, StateError
from .etcd_connection import Connection, EtcdUnusable, NoAnswer, tls_context
from .etcd_settings import EtcdSettings

__all__ = ["EtcdClient", "EtcdRefused", "EtcdSettings", "EtcdUnavailable", "EtcdUnusable"]

# gRPC's codes
INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, NO_SPACE, OUT_OF_RANGE, UNAUTHENTICATED = 3, 5, 7, 8, 11, 16
_OPEN = {1, 2, 4, 10, 13, 14, 15}  # cancelled, unknown, too late, aborted, internal, unavailable, lost
_OLDEST = (3, 4)  # version of etcd: older ones have no /v3
# Seconds that a member gets, so that a silent one does not use up the time of the others: etcd that is slow answers
# within the first, and has to; a page of a load may take longer.
_SHORTEST_TRY, _LONGEST_TRY = 1.5, 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5  # seconds between two rounds through all members
_LEAVE_ALONE = 60.0  # seconds; so long a member is not preferred that gave no answer
_encode = json.JSONEncoder(separators=(",", ":")).encode

log = logging.getLogger(__name__)


class EtcdRefused(IpclockerError):
    """etcd has refused a request for good. `code` is gRPC's; `maybe_applied`: an earlier try of it may be carried out.

    One trap: "database space exceeded" (code 8) is also said of a write that *was* carried out, and took the last room.
    """

    exit_code = OUTPUT

    def __init__(self, code: int, message: str, maybe_applied: bool = False, where: str = "etcd") -> None:
        super().__init__(f"{where} refused the request: {message}")
        self.code = code
        self.message = message
        self.maybe_applied = maybe_applied


class EtcdUnavailable(IpclockerError):
    """No member gave a definite answer in time. `maybe_applied`: the request may be carried out, now or later."""

    exit_code = OUTPUT

    def __init__(self, text: str, maybe_applied: bool = False) -> None:
        super().__init__(text)
        self.maybe_applied = maybe_applied


class EtcdClient:
    """A client for one thread. Raises UsageError, and StateError for files that can't be used."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings = settings.checked()
        self._members = settings.members()
        context = tls_context(settings)
        shows_certificate = settings.cert is not None
        self._connections = [Connection(member, context, shows_certificate) for member in self._members]
        self._current = 0  # the member that answered last
        self._ids: dict[int, str] = {}  # of the members, as far as they have said which they are
        self._failed_at: dict[int, float] = {}  # when a member gave no answer, the last time
        self._token: str | None = None  # None: not asked for yet; empty: there is no need of one
        self._warned: set[str] = set()
        self.location = ",".join(settings.urls)
        if settings.password_file is not None:
            self._password()

    @property
    def settings(self) -> EtcdSettings:
        """What it was made with, checked."""
        return self._settings

    def call(self, path: str, body: Mapping[str, Any] | bytes, deadline: float) -> dict[str, Any]:
        """Return the answer to a request like "kv/range", which may be sent several times; a body may be JSON already.

        `deadline` is monotonic, in seconds. Raises EtcdRefused, EtcdUnavailable, and EtcdUnusable (a StateError) if no
        member can be used and that will not change by itself.
        """
        data = body if isinstance(body, bytes) else _encode(body).encode()
        maybe_applied = False
        said: dict[int, NoAnswer | EtcdUnusable] = {}  # by each member, the last time
        pause = _FIRST_PAUSE
        while True:
            for _ in self._members:
                now = time.monotonic()
                if now >= deadline:
                    break
                until = min(deadline, now + max(_SHORTEST_TRY, min(_LONGEST_TRY, (deadline - now) / 3)))
                try:
                    return self._ask(path, data, until)
                except NoAnswer as problem:
                    maybe_applied |= problem.maybe_applied
                    if time.monotonic() < deadline:
                        said[self._current] = problem
                    else:
                        said.setdefault(self._current, problem)  # it had little time, what was said before tells more
                except EtcdUnusable as problem:
                    said[self._current] = problem
                    self._warn(str(problem))
                except EtcdRefused as refusal:
                    refusal.maybe_applied |= maybe_applied
                    raise
                self._failed_at[self._current] = time.monotonic()
                self._current = (self._current + 1) % len(self._members)
            left = deadline - time.monotonic()
            unusable = [problem for problem in said.values() if isinstance(problem, EtcdUnusable)]
            if unusable and (left <= 0 or len(unusable) == len(self._members)):
                raise unusable[0]
            if left <= 0:
                reason = "; ".join(map(str, said.values())) or "there was no time left"
                raise EtcdUnavailable(f"etcd gave no answer in time ({reason})", maybe_applied)
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def prefer_leader(self, until: float) -> None:
        """Ask the member that leads from now on, if it is known, since the others hand on to it all that is asked.

        It is called now and then, and takes one short question; until then (monotonic) that has to be answered. What
        goes wrong is passed over: every member serves, and the next request finds one that does.
        """
        before = self._current
        if len(self._members) == 1:
            return
        try:
            leader = self._look_at(before, until)
            allowed = [number for number in range(len(self._members)) if self._may_be_preferred(number)]
            for number in allowed:
                if leader and number not in self._ids:
                    self._look_at(number, until)
            found = [number for number in allowed if self._ids.get(number) == leader]
            self._current = before if before in found or not found else found[0]
        except (NoAnswer, EtcdUnusable, EtcdRefused):
            self._failed_at[self._current] = time.monotonic()
            self._current = before

    def _look_at(self, number: int, until: float) -> object:
        """Note which member it is that answers there; return the number of etcd's leader."""
        self._current = number
        status = self._ask("maintenance/status", b"{}", until)
        self._ids[number] = status.get("header", {}).get("member_id", "")
        return status.get("leader", "")

    def _may_be_preferred(self, number: int) -> bool:
        return time.monotonic() - self._failed_at.get(number, -inf) >= _LEAVE_ALONE

    def close(self) -> None:
        """Close the connections; the next request makes one."""
        for connection in self._connections:
            connection.close()

    def _ask(self, path: str, data: bytes, until: float) -> dict[str, Any]:
        """Ask the current member. Raises NoAnswer, EtcdUnusable, EtcdRefused."""
        for is_last in (False, True):
            if self._token is None:
                self._token = "" if self._settings.user is None else self._log_in(until)
            status, answer = self._exchange(path, data, self._token, until)
            if status == 200:
                return answer
            code, message = answer["code"], answer["message"]
            if not _is_about_token(code, message):
                break
            # Nothing was done. The token has ended, or this member does not know it yet, or users are wanted by now.
            self._token = None
            if self._settings.user is None:
                raise EtcdUnusable(f"{self._where()} wants a user: give --etcd-user and --etcd-password-file")
            if is_last:
                raise NoAnswer(f"{self._where()}: {message}", maybe_applied=False)
        if code in _OPEN:
            raise NoAnswer(f"{self._where()}: {message}", maybe_applied=True)
        raise EtcdRefused(code, message, where=f"etcd at {self._where()}")

    def _exchange(self, path: str, data: bytes, token: str, until: float) -> tuple[int, dict[str, Any]]:
        """Return the status and the object that was answered; unless that is 200, it has `code` and `message`."""
        status, text = self._connections[self._current].ask("POST", f"/v3/{path}", data, token, until)
        answer = _object(text)
        is_whole = "header" in answer or "result" in answer
        if status == 200 and (is_whole or "alarms" in answer or (text == b"{}" and "maintenance/" in path)):
            return status, answer
        error = answer.get("error")
        if isinstance(error, dict):  # of a stream, whose status was sent before
            answer = {"code": error.get("grpc_code", error.get("code")), "message": error.get("message")}
        if isinstance(answer.get("code"), int) and isinstance(answer.get("message"), str):
            return max(status, 400), answer
        if (status >= 500 and status != 501) or status in (408, 429):  # of something between us and etcd
            raise NoAnswer(f"{self._where()}: status {status}", maybe_applied=True)
        raise EtcdUnusable(self._why_it_is_no_etcd(status, text, until))

    def _why_it_is_no_etcd(self, status: int, text: bytes, until: float) -> str:
        if b"HTTPS server" in text:
            return f"{self._where()} can't be asked without TLS: write https://"
        try:
            version = _object(self._connections[self._current].ask("GET", "/version", None, "", until)[1])
        except NoAnswer:
            version = {}
        says = version.get("etcdserver")
        if not isinstance(says, str):
            return f"{self._where()} is no etcd: it answers with status {status}, and not as etcd does"
        if read_version(says) < _OLDEST:
            return f"{self._where()} is an etcd of version {says}, which is too old: version 3.4 is the oldest for this"
        return f"{self._where()} is an etcd that does not answer JSON (status {status}): is its gRPC gateway on?"

    def _log_in(self, until: float) -> str:
        user = self._settings.user
        data = _encode({"name": user, "password": self._password()}).encode()
        try:
            status, answer = self._exchange("auth/authenticate", data, "", until)
        except NoAnswer as problem:
            raise NoAnswer(str(problem), maybe_applied=False) from problem
        if status == 200 and isinstance(answer.get("token"), str):
            return str(answer["token"])
        message = answer.get("message", "it gave no token")
        if "not enabled" in message:
            return ""
        if answer.get("code") in _OPEN:
            raise NoAnswer(f"{self._where()}: {message}", maybe_applied=False)
        raise EtcdUnusable(
            f"{self._where()} does not let the user '{user}' in with the password in {self._settings.password_file}: "
            f"{message}"
        )

    def _password(self) -> str:
        file = str(self._settings.password_file)
        try:
            with open(file, encoding="utf-8") as source:
                return source.read().rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise StateError(f"the file {file} with etcd's password can't be read: {reason}") from error

    def _where(self) -> str:
        return str(self._members[self._current])

    def _warn(self, problem: str) -> None:
        """Say once what is wrong with a member, since the others may do without it for long."""
        if len(self._members) > 1 and problem not in self._warned:
            self._warned.add(problem)
            log.warning("%s", problem)


def _is_about_token(code: int, message: str) -> bool:
    return code == UNAUTHENTICATED or (
        code == INVALID_ARGUMENT and ("user name is empty" in message or "auth store is old" in message)
    )


def _object(text: bytes) -> dict[str, Any]:
    """Read a JSON object; an empty one stands for all that is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def read_version(text: str) -> tuple[int, ...]:
    """The numbers of a version of etcd, as far as it has some."""
    numbers = text.split("-")[0].split(".")
    return tuple(int(number) for number in numbers if number.isascii() and number.isdigit())
