"""A lease: a hold that is renewed, seen by its holder, from whose side it ends earlier than from the server's.

    sent       S/3       2S/3        S - max(1, S/10)     S
    |----------|---------|-----------|--------------------|
    renewed    renew_at  end_at      kill_at              over_at

All is counted from when the last request was sent that the server has answered well: the server counts from when it
received it, so it can grant the lock anew after `expires_at` only. What the lock protects is asked to end at `stop_at`,
and is made to end at `kill_at`.
"""

from __future__ import annotations

from math import inf


class Lease:
    """The times of one lease of so many `seconds`, on the clock that `sent` is on."""

    __slots__ = ("ending", "expires_at", "kill_at", "renew_at", "seconds", "sent", "stop_at")

    def __init__(self, seconds: float, sent: float) -> None:
        self.seconds = seconds
        self.ending = False  # it is not renewed any more
        self._start(sent)

    def _start(self, sent: float) -> None:
        seconds = self.seconds
        self.sent = sent
        self.renew_at = sent + seconds / 3
        self.stop_at = sent + seconds * 2 / 3
        self.kill_at = sent + seconds - max(1.0, seconds / 10)
        self.expires_at = sent + seconds

    def renewed(self, sent: float) -> None:
        """A renewal that was sent then was answered well, however late; one that was sent earlier says nothing new."""
        if sent > self.sent and not self.ending:
            self._start(sent)

    def end(self, now: float) -> None:
        """It is lost, or asked for back: what it protects has to end now, and has a third of the time for that."""
        self.ending = True
        self.renew_at = inf
        self.stop_at = min(self.stop_at, now)
        self.kill_at = min(self.kill_at, now + self.seconds / 3)
