"""A lease: a hold time that is renewed, as its holder counts it, for whom it ends earlier than for the server.

    sent       S/3       2S/3        S - max(1, S/10)     S
    |----------|---------|-----------|--------------------|
    renewed    renew_at  stop_at     kill_at              expires_at

All is counted from when the last request was sent that the server has granted: the server counts from when it
received it, so it can grant the lock to another one after `expires_at` only. Then the command must be gone:

- From S/3 on it is renewed. An answer may take up to another third, which is for more tries as well: the time after
  which a new connection is tried, and the pauses, are parts of S (keepalive.py), so that several fit in before 2S/3.
- From 2S/3 on it is too late for that: the command is told to end, and has the time up to `kill_at` for it.
- At `kill_at` the command and all that it has started get SIGKILL. The last tenth, 1 s at least, is for finding them
  all and for their end on a busy host, so that none is left at `expires_at`.

With less than 3 s (settings.SHORTEST_LEASE) `kill_at` would come before `stop_at`.
"""

from __future__ import annotations

from math import inf


class Lease:
    """The times of one lease of so many `seconds`, counted from `sent`, all on the clock that `sent` is on."""

    __slots__ = ("ending", "expires_at", "kill_at", "renew_at", "seconds", "sent", "stop_at")

    def __init__(self, seconds: float, sent: float) -> None:
        self.seconds = seconds
        self.ending = False  # set when it is not renewed any more
        self._start(sent)

    def _start(self, sent: float) -> None:
        seconds = self.seconds
        self.sent = sent
        self.renew_at = sent + seconds / 3
        self.stop_at = sent + seconds * 2 / 3
        self.kill_at = sent + seconds - max(1.0, seconds / 10)
        self.expires_at = sent + seconds

    def renewed(self, sent: float) -> None:
        """Count from `sent`, when the renewal was sent that the server has granted; never from an earlier one."""
        if sent > self.sent and not self.ending:
            self._start(sent)

    def end(self, now: float) -> None:
        """Stop renewing at `now`, since the lock is lost or recalled: the command is to end, and has S/3 for that."""
        self.ending = True
        self.renew_at = inf
        self.stop_at = min(self.stop_at, now)
        self.kill_at = min(self.kill_at, now + self.seconds / 3)
