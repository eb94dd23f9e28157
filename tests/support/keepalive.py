"""Looking at a KeepAlive from outside."""

from __future__ import annotations

from ipclocker.lock.client.keepalive import KeepAlive


def is_settled(keepalive: KeepAlive) -> bool:
    """True if the server has answered all that it was asked, on the connection that there is now."""
    connection = keepalive._connector.connection
    return not keepalive._unanswered and connection is not None and keepalive._checked_on is connection
