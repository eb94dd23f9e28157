"""Locks that are wanted together, while some of them are held and another is waited for: those are renewed meanwhile.

Over a connection of their own, since a server runs what comes behind a LOCK that waits only after the grant.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence

from ..wire.replies import Reply
from .acquisition import Held
from .connection import Link, LinkLost, TimeIsUp
from .connector import Contact
from .keepalive import Keeper
from .lease import Lease


def reply_while_holding(link: Link, contact: Contact, got: Sequence[Held], hold: float, deadline: float) -> Reply:
    """The next reply to a claim that waits; `got` is what it holds, for `hold` seconds from when that was asked for.

    Raises TimeIsUp at the deadline, LinkLost also if one of those that it held is lost.
    """
    beside = Contact(contact.settings, contact.wait)
    beside.address, beside.server = contact.address, contact.server
    lease = Lease(hold, min(held.asked for held in got))
    keeper = Keeper(beside, got, lease)
    try:
        while True:
            try:
                return link.reply(min(deadline, lease.renew_at))
            except TimeIsUp:
                if time.monotonic() >= deadline:
                    raise
            _renew(keeper, lease, deadline)
    finally:
        beside.drop()


def _renew(keeper: Keeper, lease: Lease, deadline: float) -> None:
    while lease.renew_at <= time.monotonic() < deadline:
        keeper.step(min(deadline, lease.over_at))
        if keeper.loss is not None or time.monotonic() >= lease.over_at:
            raise LinkLost(errno.ECANCELED, "what was held already was lost")
