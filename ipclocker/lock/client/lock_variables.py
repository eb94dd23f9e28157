"""What a LOCK says of the settings: for how long the lock is held, by which process, and what the answer is to tell."""

from __future__ import annotations

from ...net.text import encode_text
from ..wire.requests import encode_command
from .connection import ServerConnection, Value
from .holder_process import holder_variables
from .settings import LockSettings


def lock_variables(settings: LockSettings, connection: ServerConnection, min_hold: float) -> dict[str, Value]:
    """Return the variables that go over this connection; one that most do without is left out while it is not set."""
    variables: dict[str, Value] = {"timeout": settings.hold, "token": 1, "space": 1}
    command = encode_command(encode_text(settings.command or ""))
    for name, value, usual in (
        ("lease", int(settings.lease > 0), 0),
        ("slots", settings.slots, 1),
        ("minhold", min_hold, 0.0),
        ("command", command, b""),
    ):
        if value != usual or connection.has_sent(name):
            variables[name] = value
    process = holder_variables(settings)
    if "process" not in process and connection.has_sent("process"):
        process["process"] = 0
    return {**variables, **process}
