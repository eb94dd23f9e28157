"""The keeper: a process in the background that holds a lock for another process, which runs already.

It is there, with its control socket and, for a lease, its watchdog, before the lock is asked for. It waits for all at
once: the end of the process, the lock server, those who speak with it, and time. What happens:

                            while the lock is waited for      while it is held
    the process ends        it gives up, and says so          it gives the lock back, and ends
    nobody waits for it     it gives up                       it gives the lock back, unless somebody has taken it
    a release               it gives up, and says so          it gives the lock back, says so, and ends
    the lock is lost        -                                 as lockersh does to its command (lock_guard.py)

Signals are blocked: a host that shuts down ends the process, and so the keeper. If it is killed, the watchdog ends the
process, if there is a lease; else the lock stays with the process, under whose name it is recorded.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from math import inf
from typing import Callable

from ...daemon.detach import detach
from ...daemon.log import set_up
from ...errors import INTERNAL, LOST, TEMPORARY, UNAVAILABLE, USAGE, IpclockerError, LockLost, UsageError
from ...lock.client.acquisition import LockAcquisition
from ...lock.client.settings import LockSettings
from ...lock.grant_variables import grant_variables, space_names
from ...net.loop import Loop
from ...net.ready import READ, new_poller, poll_until
from ...net.text import decode_text, encode_text
from ...process.exit_watcher import ExitWatcher
from ...process.identity import ProcessIdentity, identify, open_pidfd
from ...process.proctitle import set_title
from ..foreground import CommandEnded, Pollable
from ..lock_guard import LockGuard, new_watchdog
from ..options import RunOptions
from ..outer_runs import OuterRuns
from ..under_lock import Reporter, acquire, trace_links
from .control import ControlSocket, Front, Message
from .terms import Wanted

_TRY_AGAIN = 1.0  # seconds; a server that did not take the lock back in time is asked again and again


class GivenUp(BaseException):
    """Raised when nobody waits for the lock any more. It is not an Exception: nothing may swallow it."""


class ToBeReleased(BaseException):
    """Raised when the lock is to be given back. It is not an Exception: nothing may swallow it."""


class Watched:
    """A process that is pinned by its pidfd before the keeper is made: by then its number may be another one's."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError if there is no such process."""
        self._pidfd = open_pidfd(pid)
        self.process = identify(pid)  # after that: if it is another one's already, the pidfd tells of the end
        self.has_ended = False

    def watch(self, loop: Loop) -> None:
        """Set `has_ended` as soon as the process has ended, in a turn of the loop."""
        pidfd = self._pidfd
        if pidfd is None:
            ExitWatcher(loop).add(self.process, self._end)
            return

        def ready(events: int) -> None:
            loop.unwatch(pidfd)  # it stays readable
            self._end()

        loop.watch(pidfd, READ, ready)

    def _end(self) -> None:
        self.has_ended = True


class Keeper(Reporter):
    """One keeper. As a Reporter it tells those who wait for the lock how that goes on; for the guard it waits."""

    def __init__(self, watched: Watched, settings: LockSettings, options: RunOptions, front: socket.socket) -> None:
        super().__init__(verbose=False)
        self.first: Callable[[], None] | None = None  # what is called first whenever this process wakes up
        self._watched = watched
        self._loop = Loop()
        self._process = watched.process
        self._settings = settings
        self._options = options
        self._wanted = Wanted.of(settings)
        self._names = ", ".join(self._wanted.names)
        self._fronts = {Front(self._loop, front, self, "hold")}
        self._grants: tuple[tuple[str, int | None], ...] = ()
        self._space = ""
        self._taken = False  # somebody has said that the caller knows of the grants
        self._over = False  # from here on nothing is raised any more
        self._to_be_replaced = False
        self._is_stuck = False  # the lock could not be given back so far
        self._guard: LockGuard | None = None
        self._within = options.release_within

    def run(self, debug: bool) -> None:
        """Be the keeper, in a new process, until there is nothing to keep."""
        detach()
        self._watched.watch(self._loop)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        set_up("lockersh", foreground=False, log_file=None, debug=False)
        set_title(f"lockersh: keeps lock {self._names} for process {self._process.pid}")
        if debug:
            trace_links(lambda text: self._tell({"say": text}))
        try:
            control = ControlSocket(self._loop, self._process, self._wanted.key, self)
        except UsageError as taken:  # another one was faster
            self._tell({"again": str(taken)})
            return
        except IpclockerError as error:
            self._fail(error)
            return
        last: Message = {"error": "a fault of ours: see the system log", "code": INTERNAL}
        try:
            last = self._keep()
        except IpclockerError as error:
            last = _message(error)
        except Exception:
            logging.getLogger(__name__).exception("a fault of ours")
        finally:
            control.close()  # first: who hears the answer may take the lock once more
            self._end(last)

    # As a reporter of the acquisition

    def waiting(self, name: str, holder: str) -> None:
        """Tell that the lock is busy and waited for."""
        self._tell({"waiting": [name, holder]})
        self.on_busy()

    def obtained(self) -> None:
        """Tell that the lock was granted after a wait."""
        self._tell({"obtained": True})

    def retry(self, reason: str, left: float) -> None:
        """Tell that no server answers, and for how many seconds they are tried again."""
        self._tell({"retry": [reason, left]})

    def report(self, text: str) -> None:
        """Tell people: there is nothing but the system's log once the caller has gone on."""
        logging.getLogger(__name__).warning("%s", text)
        self._tell({"say": text})

    # As the foreground of the guard

    def wait(self, sock: Pollable | None, events: int, deadline: float) -> bool:
        """Wait until the socket is ready for the poll(2) events; return False at the deadline (monotonic seconds).

        Raises CommandEnded, GivenUp and ToBeReleased.
        """
        poller = new_poller()
        poller.register(self._loop.fileno(), READ)
        if sock is not None:
            poller.register(sock.fileno(), events)
        while True:
            self._raise_what_has_happened()
            ready = poll_until(poller, min(deadline, self._loop.next_timer))
            if self.first is not None:
                self.first()
            self._loop.turn(0.0)
            self._raise_what_has_happened()
            if any(descriptor != self._loop.fileno() for descriptor, _ in ready):
                return True
            if time.monotonic() >= deadline:
                return False

    def was_ended_by(self, number: int) -> bool:
        """Tell if the process has ended by this signal: its parent knows, this process does not."""
        return False

    def _raise_what_has_happened(self) -> None:
        if self._over:
            return
        self._over = True
        if self._watched.has_ended:
            raise CommandEnded
        if self._to_be_replaced or self._waits("release"):
            raise ToBeReleased
        if not self._taken and not self._waits("hold"):
            raise GivenUp
        self._over = False

    # As it is asked

    def asked(self, front: Front, message: Message) -> None:
        """Take a message of one who speaks with this keeper."""
        ask = message["ask"]
        if ask == "hold":
            self._asked_to_hold(front, Wanted.from_json(message["wanted"]))
        elif ask == "taken":
            self._taken = True
            self._fronts.discard(front)
        elif ask == "release":
            held = [name for name, _ in self._grants] or self._wanted.names
            if set(held).isdisjoint(map(str, message["names"])):
                front.say({"other": True})
                return
            self._add(front, "release")
            front.say({"within": self._within})
        else:
            raise ValueError(ask)

    def left(self, front: Front) -> None:
        """Note that this one has gone."""
        self._fronts.discard(front)

    def _asked_to_hold(self, front: Front, wanted: Wanted) -> None:
        held = [name for name, _ in self._grants]
        differences = wanted.terms.differences(self._wanted.terms)
        if not wanted.is_met_by(self._wanted, held):
            front.say({"other": True})
        elif self._is_stuck:
            front.say(self._stuck())
        elif self._over:
            self._add(front, "hold")  # until this one has ended
        elif self._guard is not None and self._guard.is_ending:
            front.say({"error": self._lost(), "code": LOST})
        elif self._guard is not None and self._guard.loss is not None:
            self._add(front, "hold")
            self._to_be_replaced = True
        elif differences:
            text = f"process {self._process.pid} has lock {self._names} already, on other terms: {differences}"
            front.say({"error": f"{text} (--release gives it back)", "code": USAGE})
        else:
            self._add(front, "hold")
            if held:
                front.say(self._granted(wanted))
            else:
                front.say({"joined": True})

    def _stuck(self) -> Message:
        text = f"lock {self._names} is still being given back for process {self._process.pid}: try again later"
        return {"error": text, "code": TEMPORARY}

    def _add(self, front: Front, wants: str) -> None:
        front.wants = wants
        self._fronts.add(front)

    def _waits(self, wants: str) -> bool:
        return any(front.wants == wants for front in self._fronts)

    def _tell(self, message: Message, wants: str = "hold") -> None:
        for front in [front for front in self._fronts if front.wants == wants]:
            front.say(message)

    def _fail(self, error: IpclockerError) -> None:
        self._tell(_message(error))

    def _granted(self, wanted: Wanted) -> Message:
        met = [grant for grant in self._grants if grant[0] in wanted.names]
        return {"grants": met if wanted.together else met[:1], "space": self._space}

    # The lock

    def _keep(self) -> Message:
        """Get the lock, keep it, and give it back; the answer to those who wait still. Raises IpclockerError."""
        mark = os.urandom(12).hex()
        watchdog = new_watchdog(self._process, mark) if self._settings.lease else None
        acquisition = LockAcquisition(self._settings, self, self.wait)
        acquisition.subscribes = True
        acquisition.connector.check = lambda: self.wait(None, 0, time.monotonic())
        self.on_busy = lambda: self._refuse_outer_runs(acquisition)
        try:
            acquire(acquisition, self, self._options.wait)
            self._within = acquisition.connector.patient(self._options.release_within)
            self._hold(acquisition)
            if all(held.token is not None for held in acquisition.grants):
                additions = {name: value for name, value in self._variables().items() if value is not None}
                options = self._options
                self._guard = LockGuard(
                    self, self._process, mark, acquisition, options, additions, self.report, watchdog
                )
                watchdog = None  # it is the guard's
                if self._guard.is_late:
                    self._guard.finish()
                    self._grants = ()
                    raise LockLost(f"lock {self._names} was lost at once: this host was too slow for the lease")
            self._tell(self._granted(self._wanted))
            self._wait_for_end()
            return self._give_back(acquisition)
        except CommandEnded:
            raise _ended(self._process) from None
        except ToBeReleased:
            self._tell({"released": True}, "release")
            return {"error": f"lock {self._names} was given back before it was granted", "code": TEMPORARY}
        except GivenUp:
            return {}
        finally:
            self._over = True
            if watchdog is not None:
                watchdog.disarm()
            acquisition.abandon()  # what was not given back by now

    def _hold(self, acquisition: LockAcquisition) -> None:
        connector = acquisition.connector
        assert connector.address is not None
        self._space = space_names(connector.address, connector.space and connector.space.identity)[0]
        self._grants = tuple((decode_text(held.name), held.token) for held in acquisition.grants)
        self._names = ", ".join(name for name, _ in self._grants)

    def _variables(self) -> dict[str, str | None]:
        grants = ((encode_text(name), token) for name, token in self._grants)
        return grant_variables(grants, self._space)

    def _refuse_outer_runs(self, acquisition: LockAcquisition) -> None:
        member = self._process.pid
        OuterRuns(acquisition, self.wait, member).refuse(
            f"process {member} itself, or a run that it is part of", "lockstat show says more"
        )

    def _wait_for_end(self) -> None:
        """Keep the lock until the process has ended, or the lock is to be given back."""
        guard = self._guard
        while True:
            try:
                if guard is None:
                    self.wait(None, 0, inf)
                else:
                    guard.step()
            except (CommandEnded, GivenUp):
                break
            except ToBeReleased:
                if guard is None or not guard.is_ending:
                    break
                self._end({"error": self._lost(), "code": LOST}, "release")  # the process is to end all the same
                self._over = False
        if guard is not None:
            guard.finish()

    def _give_back(self, acquisition: LockAcquisition) -> Message:
        """Give the lock back; the answer to those who wait for that. While that fails, it is tried again."""
        guard = self._guard
        loss = None if guard is None else guard.loss
        if guard is not None and loss is not None and not loss.recalled:
            guard.give_back(self._within)
            guard.wait_for_hook()
            return {"error": self._lost(), "code": LOST}
        over_at = time.monotonic() + (self._settings.lease or inf)
        stood = None
        while True:
            try:
                if stood is None:
                    stood = True
                    stood = acquisition.release(self._within)
                else:
                    acquisition.release(self._within)
                return {"released": True} if stood else {"error": self._lost(), "code": LOST}
            except IpclockerError as error:
                text = f"lock {self._names} could not be given back in {self._within:g} s ({error})"
                self._is_stuck = True
                self._tell(self._stuck())
                self._end({"error": f"{text}: it is tried again and again", "code": UNAVAILABLE}, "release")
                if self._watched.has_ended or time.monotonic() >= over_at:
                    self.report(
                        f"{text}: it stays held until the server finds that process {self._process.pid} is gone"
                    )
                    return {}
                self.wait(None, 0, time.monotonic() + _TRY_AGAIN)

    def _lost(self) -> str:
        return f"lock {self._names} was lost before it was given back"

    def _end(self, last: Message, *of: str) -> None:
        """Give those who wait their last answer; one that waits for the lock asks another keeper if this held it."""
        for front in [front for front in self._fronts if front.wants in (of or ("hold", "release"))]:
            if front.wants == "hold" and self._grants and last.get("code") != INTERNAL:
                front.say({"again": f"lock {self._names} was given back"})
            elif last:
                front.say(last)
            self._fronts.discard(front)
            front.close()


def _message(error: IpclockerError) -> Message:
    return {"error": str(error), "code": error.exit_code}


def _ended(process: ProcessIdentity) -> UsageError:
    return UsageError(f"process {process.pid} has ended, so there is nothing to hold a lock for")
