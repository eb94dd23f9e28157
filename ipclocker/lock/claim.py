"""One claim on a lock: find a server, ask, wait, hold, give back; whatever breaks in between, exactly once.

A claim has a user name and a session of its own, so that no two share a lock by accident. Whenever the
connection breaks it asks again under the same session: a server that had granted the lock grants the same once
more, and one that had not puts it into the queue. From the moment that a server was reached until the lock is
given back the claim stays with that server, since each server is a lock space of its own. What was asked for and
is not wanted any more (a time-out, a signal, an exception) is given back over a connection of its own, since the
grant may be on its way at that very moment.

A lock that was waited for is not taken to be held before the server has said, after the claim's confirmation,
that the grant still stands: the process may have been stopped for longer than the server waits for a sign of life.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from math import inf
from typing import Callable, NamedTuple, Optional, Protocol

from ..daemon.address import Address, own_host_name
from ..errors import IpclockerError, ServerRefused, ServerUnavailable
from ..pid.identity import Identity, exists, identify, in_container
from .link import Link, LinkLost, TimeIsUp, Value, Wait, block
from .protocol import Answer, Broke, LookFor, Reply, Waiting
from .settings import Settings, user_name

ANSWER_WITHIN = 10.0  # seconds for an answer that depends on nobody else; a server silent for longer is no server
RELEASE_WITHIN = 5.0  # seconds to reach the server again for giving a lock back
_FIRST_PAUSE = 0.1  # seconds before the first reconnection; each further one waits twice as long


class Held(NamedTuple):
    """A grant as its holder knows it. `token` is None from a classic server; `until` is on the monotonic clock."""

    name: bytes
    token: Optional[int]
    until: float


class Listener(Protocol):
    """Whoever wants to know how a claim fares."""

    def waiting(self, name: str, holder: str) -> None:
        """The lock is busy, and the claim is in the queue."""

    def obtained(self) -> None:
        """The lock was granted after a wait."""

    def broke(self, holder: str) -> None:
        """The lock was broken; it was the holder's."""

    def retry(self, reason: str, pause: float) -> None:
        """No server answers; it is tried again in so many seconds."""


class Claim:
    """A claim under the name of a user (default: HOST_PID_USER) and a session that is new for each."""

    def __init__(self, settings: Settings, listener: Listener, wait: Wait = block, suffix: str = "") -> None:
        self.settings = settings
        self.held: Held | None = None
        self.link: Link | None = None
        self.server = ""  # the server that was last tried
        self.holder = ""  # who held the lock when it was last asked for
        self.look_up: Callable[[str], list[Address]] | None = None  # in place of settings.addresses
        self._listener = listener
        self._wait = wait
        self._session = os.urandom(12).hex().encode()
        self._suffix = suffix
        self._user: bytes | None = None
        self._told_dead: set[LookFor] = set()
        self._answered = False  # whether that server has answered since it was asked
        self._address: Address | None = None  # the server that the claim stays with
        self._pause = 0.0  # before the next connection to it
        self._lost_at = inf  # when the connection to it was lost
        self._problem: OSError = LinkLost(errno.ECONNRESET, "the connection was lost")
        self._reasons: list[str] = []  # why each server that was tried is no good

    # Asking

    def obtain(self, wait: bool, deadline: float) -> bool:
        """Get the lock, or renew it; False if it is busy and not to be waited for any longer.

        Raises ServerUnavailable if no server answers before the deadline or within the tries, ServerRefused.
        """
        servers: Iterator[Link] | None = None
        try:
            while True:
                if self.link is None and not self._reconnect(deadline, self._patience):
                    servers = servers or self._each_server(deadline)
                    self.link = next(servers)
                    self._answered, self._pause, self._lost_at = False, 0.0, inf
                assert self.link is not None
                try:
                    granted = self._ask(self.link, wait, deadline)
                except LinkLost as problem:
                    self.lose_link(problem)
                    continue
                if granted is not None:
                    return granted
        except TimeIsUp:
            self.give_back()
            return False
        except BaseException:
            self.give_back()
            raise

    def _ask(self, link: Link, wait: bool, deadline: float) -> bool | None:
        """Ask once; None if the answer came too late: the grant does not stand any more."""
        asked = time.monotonic()
        self._address = link.address  # from here on there may be a grant
        link.say(b"LOCK", **self._variables(wait))
        waited = ask_again = False
        while True:
            reply = link.reply(deadline) if waited else _prompt_reply(link, deadline if wait else inf)
            self._answered, self._pause, self._lost_at = True, 0.0, inf
            if isinstance(reply, Waiting):
                waited = True
                self.holder = os.fsdecode(reply.holder)
                self._listener.waiting(os.fsdecode(self.settings.names[0]), self.holder)
            elif isinstance(reply, Broke):
                self._listener.broke(os.fsdecode(reply.holder))
            elif isinstance(reply, LookFor):
                ask_again = self._look_for(reply, link) or ask_again
            elif isinstance(reply, Answer):
                break
        self._refuse_error(reply)
        if not reply.locked or reply.name is None:
            self.holder = os.fsdecode(reply.owner)
            self.held = None
            ask_again |= waited
            # A classic server would still grant the lock to this connection some time, so it has to go.
            self.drop_link()
            if not ask_again:
                self._address = None
            return None if ask_again else False
        link.heard("locks", (reply.name,))
        if waited:
            asked = time.monotonic()
            if reply.token is not None and not self._confirm(link, reply.name, reply.token):
                return None
        hold = self.settings.hold
        self.held = Held(reply.name, reply.token, asked + hold if hold else inf)
        if waited:
            self._listener.obtained()
        if reply.token is None:
            self.drop_link()  # for a classic server every open connection is work, and of no use
        return True

    def _confirm(self, link: Link, name: bytes, token: int) -> bool:
        """Confirm a waited grant; whether it still stands. A hold time starts anew with that, so it is full."""
        check = b"RENEW" if self.settings.hold else b"CHECK"
        link.send(b"GOT %b %d\n%b %b %d\n" % (name, token, check, name, token))
        answer = self._answer(link)
        return answer.renewed or answer.current is True

    def _look_for(self, sought: LookFor, link: Link) -> bool:
        """Look for the process that the holder's lock depends on, if it is of this host; whether it was told dead.

        A server that can't look for itself, as a classic one at times, then frees the lock.
        """
        if sought in self._told_dead or os.fsdecode(sought.host) != own_host_name() or in_container():
            return False
        if exists(sought.pid) is not False:
            return False
        self._told_dead.add(sought)
        with contextlib.suppress(OSError):
            messenger = Link.connect(link.address, time.monotonic() + ANSWER_WITHIN, self._wait)
            messenger.send(b"DEAD_PID %b %d\n\nEOF\n\n" % (sought.host, sought.pid))
            messenger.close()
        return True

    def _variables(self, wait: bool) -> dict[str, Value]:
        settings = self.settings
        variables = {
            **self._who(),
            "locks": settings.names,
            "block": int(wait),
            "timeout": settings.hold,
            "token": 1,
        }
        if settings.autounlock:
            pid = os.getpid() if settings.pid is None else settings.pid
            variables.update(autounlock=1, pid=pid, hostname=os.fsencode(settings.hostname or own_host_name()))
            process = identify(pid) if settings.hostname is None else Identity(pid)
            if process.start is not None and process.pidns is not None:
                variables.update(start=process.start, boot=process.boot.encode(), pidns=process.pidns)
        else:
            variables["autounlock"] = 0
        return variables

    def _who(self) -> dict[str, Value]:
        """Under which user and session the claim asks; the same for all of its life."""
        if self._user is None:
            settings = self.settings
            user = settings.user
            if user is None:
                pid = os.getpid() if settings.pid is None else settings.pid
                user = user_name(settings.hostname or own_host_name(), pid) + self._suffix
            self._user = os.fsencode(user)
        return {"user": self._user, "session": self._session}

    def _refuse_error(self, answer: Answer) -> None:
        if answer.error is not None:
            self.drop_link()
            raise ServerRefused(os.fsdecode(answer.error), self.server)

    # Giving back

    def release(self, within: float = RELEASE_WITHIN) -> bool:
        """Give the lock back; False if the server says that it was lost before.

        Raises ServerUnavailable if the server can't be told in so many seconds; the claim holds nothing then,
        either, as far as it knows.
        """
        held, self.held = self.held, None
        assert held is not None
        stood = self._unlock(held, (held.name,), within)
        self._address = None
        return stood

    def give_back(self, within: float = RELEASE_WITHIN) -> None:
        """Give back what was asked for and may have been granted meanwhile; silent if the server is gone."""
        self.drop_link()
        self.held = None
        if self._address is not None:
            with contextlib.suppress(IpclockerError):
                self._unlock(None, self.settings.names, within)
            self.drop_link()
            self._address = None

    def _unlock(self, held: Held | None, names: tuple[bytes, ...], within: float) -> bool:
        """Tell the server, over a new connection if need be, until it has answered or the time is over.

        False if it says that the grant did not stand any more.
        """
        deadline = time.monotonic() + within
        pause = _FIRST_PAUSE
        told = False
        while True:
            try:
                link = self.link or self._connect_again(deadline)
                link.receive()  # if the server is gone since, that is said here
                # In one packet: does the grant stand, and may it end. Asked again after an answer that was lost, the
                # former says nothing.
                check = b""
                if held is not None and held.token is not None and not told:
                    check = b"CHECK %b %d\n" % (held.name, held.token)
                told = True
                link.say(b"UNLOCK", check, **self._who(), locks=names)
                stood = not check or link.answer(deadline).current is not False
                self._refuse_error(link.answer(deadline))
                return stood
            except (OSError, TimeIsUp) as problem:
                self.drop_link()
                if time.monotonic() + pause >= deadline:
                    raise self._unavailable(problem) from None
            self._wait(None, 0, time.monotonic() + pause)
            pause *= 2

    # One question, without a claim

    def query(self, command: bytes, deadline: float = inf) -> Answer:
        """Ask a server something that has one answer at once. Raises ServerUnavailable, ServerRefused."""
        for link in self._each_server(deadline):
            try:
                link.say(command, **self._who(), locks=self.settings.names)
                answer = self._answer(link)
            except LinkLost as problem:
                self._reasons.append(f"{link.address}: {problem.strerror}")
                continue
            finally:
                link.close()
            self._refuse_error(answer)
            return answer
        raise AssertionError("without a server there is an error")

    def _answer(self, link: Link) -> Answer:
        while True:
            reply = _prompt_reply(link)
            if isinstance(reply, Broke):
                self._listener.broke(os.fsdecode(reply.holder))
            elif isinstance(reply, Answer):
                return reply

    # Connections

    def stands(self) -> bool:
        """Ask the server, over a new connection if need be, whether it still knows the grant.

        It stays with its server for as long as it takes. A claim that does not stand holds nothing any more.
        """
        while self.held is not None and self.held.token is not None:
            if self.link is None:
                self._reconnect(inf, inf)
            assert self.link is not None
            try:
                self.link.send(b"CHECK %b %d\n" % (self.held.name, self.held.token))
                if self._answer(self.link).current is False:
                    self.held = None
                self._pause, self._lost_at = 0.0, inf
                break
            except LinkLost as problem:
                self.lose_link(problem)
        return self.held is not None

    def drop_link(self) -> None:
        """Hang up; a lock that is held stays held."""
        if self.link is not None:
            self.link.close()
            self.link = None

    def lose_link(self, problem: OSError) -> None:
        """The connection broke; the next one to this server is made after a pause."""
        if self.link is not None:
            self._reasons.append(f"{self.link.address}: {problem.strerror}")
        self.drop_link()
        self._problem = problem
        self._lost_at = min(self._lost_at, time.monotonic())
        if not self._answered and problem.errno == errno.ETIMEDOUT:
            self._lost_at = -inf  # it was given its time
        self._pause = min(self._pause * 2 or _FIRST_PAUSE, max(_FIRST_PAUSE, self.settings.connect_delay))

    @property
    def _patience(self) -> float:
        """Seconds for which a claim that holds nothing goes back to the server that it has asked."""
        if not self._answered:
            return _FIRST_PAUSE  # long enough for one more try, since the request may have been granted
        return self.settings.connect_delay * self.settings.connect_tries

    def _reconnect(self, deadline: float, patience: float) -> bool:
        """Connect to the server that the claim stays with; False if there is none, or not any more.

        Raises ServerUnavailable at the deadline, or if the patience is over while the lock is held.
        """
        while self._address is not None:
            if time.monotonic() - self._lost_at > patience:
                if self.held is not None:
                    raise self._unavailable(self._problem)
                self.give_back(within=1.0)  # it is left for another one, and may have granted what it was asked for
                break
            self._sleep(self._pause, deadline)
            try:
                self._connect_again(deadline)
                return True
            except OSError as problem:
                self.lose_link(problem)
        return False

    def _connect_again(self, deadline: float) -> Link:
        assert self._address is not None
        self.link = Link.connect(self._address, deadline, self._wait)
        return self.link

    def _each_server(self, deadline: float) -> Iterator[Link]:
        """A connection to each server in turn, as often as the settings say; who takes one says why it is no good.

        Raises ServerUnavailable when the last one was no good, or the deadline would come before the next.
        """
        settings = self.settings
        for tries_left in reversed(range(settings.connect_tries)):
            self._reasons = []
            yield from self._each_address(deadline)
            reason = f"no lock server answers ({'; '.join(self._reasons)}): start lockerd there, or name its host"
            from random import uniform  # only here, for an import that most runs do without

            pause = settings.connect_delay * uniform(1, 2)
            if not tries_left or time.monotonic() + pause >= deadline:
                raise ServerUnavailable(reason)
            self._listener.retry(reason, pause)
            self._sleep(pause, deadline)

    def _each_address(self, deadline: float) -> Iterator[Link]:
        for server in self.settings.servers():
            self.server = server
            try:
                addresses = (self.look_up or self.settings.addresses)(server)
            except ServerUnavailable as problem:
                self._reasons.append(str(problem))
                continue
            for address in addresses:
                self.server = str(address)
                try:
                    link = Link.connect(address, deadline, self._wait)
                except OSError as problem:
                    self._reasons.append(f"{address}: {problem.strerror or problem}")
                else:
                    yield link

    def _sleep(self, seconds: float, deadline: float) -> None:
        until = time.monotonic() + seconds
        self._wait(None, 0, min(until, deadline))
        if until > deadline:
            raise self._unavailable(self._problem)

    def _unavailable(self, problem: BaseException) -> ServerUnavailable:
        why = (getattr(problem, "strerror", None) or str(problem)) or f"no answer in {ANSWER_WITHIN:.0f} s"
        return ServerUnavailable(f"the lock server {self.server} does not answer: {why}")


def _prompt_reply(link: Link, deadline: float = inf) -> Reply:
    """A reply that depends on nobody else: a server that does not give it is none.

    Raises LinkLost after ANSWER_WITHIN seconds, or at the deadline, but not in less than one second.
    """
    now = time.monotonic()
    try:
        return link.reply(min(now + ANSWER_WITHIN, max(now + 1, deadline)))
    except TimeIsUp:
        raise LinkLost(errno.ETIMEDOUT, "it does not answer") from None
