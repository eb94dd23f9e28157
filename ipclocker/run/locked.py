"""A command run under a lock: what lockersh does once its command line was read."""

from __future__ import annotations

import os
import sys
import time
from math import inf

from ..errors import IpclockerError, LockBusy
from ..lock.claim import Claim
from ..lock.link import READ, Link, LinkLost
from ..lock.settings import Settings
from .child import Child
from .foreground import CommandEnded, Foreground, Interrupted, end_by_signal
from .signals import in_foreground
from .tell import tell


class Reporter:
    """Tells on stderr how the claim fares: what matters always, the rest if `verbose`."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._on_terminal = verbose and sys.stderr.isatty()
        self._waiting_for = ""
        self._since = time.monotonic()

    @property
    def ticks(self) -> bool:
        """Whether there is something to show every second."""
        return self._on_terminal

    def waiting(self, name: str, holder: str) -> None:
        """The lock is busy, and the claim is in the queue."""
        if not self._waiting_for:
            self._since = time.monotonic()
        self._waiting_for = name
        self._say(f"waiting for lock {name}: {holder} holds it")

    def obtained(self) -> None:
        """The lock was granted after a wait."""
        if self._waiting_for:
            self._say(f"obtained lock after {time.monotonic() - self._since:.1f} s")

    def broke(self, holder: str) -> None:
        """The lock was broken."""
        self._say(f"broke the lock of {holder}")

    def retry(self, reason: str, pause: float) -> None:
        """No server answers; that is said at once, whether asked for or not."""
        self.tell(f"{reason}; trying again in {pause:.0f} s")

    def tick(self) -> None:
        """Show the time waited so far, over what was shown before; not from the background."""
        if self._waiting_for and in_foreground():
            tell(f"\rwaiting for lock {self._waiting_for}: {time.monotonic() - self._since:.0f} s", end="")

    def tell(self, text: str) -> None:
        """Say something that its reader should know."""
        start = "\r\033[K" if self._on_terminal else ""
        tell(f"{start}lockersh: {text}")

    def _say(self, text: str) -> None:
        if self._verbose:
            self.tell(f"{time.strftime('%H:%M:%S')} {text}")


def trace_links() -> None:
    """From now on show on stderr all that is said to lock servers and back."""

    def show(direction: str, data: bytes) -> None:
        for line in data.decode("utf-8", "backslashreplace").split("\n")[:-1]:
            tell(f"lockersh: {direction} {line}")

    Link.trace = show


def list_locks(settings: Settings) -> None:
    """Print the locks that are held and their holders, sorted by name. Raises ServerUnavailable, ServerRefused."""
    answer = Claim(settings, Reporter(False)).query(b"LOCK_LIST")
    lines = [f"{os.fsdecode(name):<20} {os.fsdecode(owner)}\n" for name, owner in sorted(answer.locks)]
    sys.stdout.buffer.write(os.fsencode("".join(lines)))  # as bytes: a name comes out as it was given


def run_locked(child: Child, settings: Settings, *, wait: float | None, release_within: float, verbose: bool) -> int:
    """Get the lock, let the child run, give the lock back, and end as the command did.

    Returns an exit code only if the command was not run. `wait` is the longest wait for the lock in seconds, 0
    for one try, None for ever. Raises LockBusy, ServerUnavailable, ServerRefused.
    """
    reporter = Reporter(verbose)
    foreground = Foreground(child, reporter.tick if reporter.ticks else None)
    claim = Claim(settings, reporter, foreground.wait)
    claim.look_up = lambda server: foreground.interruptibly(lambda: settings.addresses(server))
    try:
        deadline = inf if wait is None else time.monotonic() + wait
        if not claim.obtain(wait != 0, deadline):
            raise LockBusy(_busy_message(claim, wait))
    except Interrupted as interrupted:
        foreground.finish()
        end_by_signal(interrupted.number)
    except CommandEnded:
        foreground.end_like_command()
    except BaseException:
        foreground.finish()
        raise
    assert claim.held is not None
    name = os.fsdecode(claim.held.name)
    foreground.start({"IPCLOCKER_LOCK": name})
    foreground.run(lambda: _keep(claim, foreground, reporter, name))
    _release(claim, release_within, reporter, name)
    foreground.end_like_command()


def _busy_message(claim: Claim, wait: float | None) -> str:
    names = ", ".join(map(os.fsdecode, claim.settings.names))
    waited = f" after {wait:g} s" if wait else ""
    return f"lock {names} is busy{waited}: {claim.holder} holds it"


def _keep(claim: Claim, foreground: Foreground, reporter: Reporter, name: str) -> None:
    """Wait beside the command; while the server is there keep a connection to it, else look for it again."""
    if claim.held is None or claim.held.token is None:
        foreground.wait(None, 0, inf)
        return
    if claim.link is None and not claim.stands():
        reporter.tell(f"lock {name} was lost while the command runs: {claim.server} does not know of it any more")
        return
    assert claim.link is not None
    try:
        foreground.wait(claim.link.sock, READ, inf)
        claim.link.receive()
    except LinkLost as problem:
        claim.lose_link(problem)


def _release(claim: Claim, within: float, reporter: Reporter, name: str) -> None:
    if claim.held is None:
        return
    until = claim.held.until
    try:
        # A server that sees the command's end by itself has freed the lock by now, which is no loss.
        if not claim.release(within) and time.monotonic() >= until:
            reporter.tell(f"lock {name} was lost before the command ended: its hold time was over")
    except IpclockerError as error:
        reporter.tell(
            f"lock {name} could not be given back in {within:g} s ({error}): it stays held until the "
            "server finds that the command is gone"
        )
