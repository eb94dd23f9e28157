"""Locks that hold across hosts, and what goes with them. The names below are the library."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import (
        IpclockerError,
        LockBusy,
        LockLost,
        NotHeld,
        ProgramFailed,
        ServerRefused,
        ServerUnavailable,
        UsageError,
    )
    from .lock.client.locker import Locker
    from .lock.server.server import LockServer
    from .pid.client import PidStat
    from .pid.server import PidServer
    from .prefork.manager import ProcManager
    from .supervise.supervisor import Supervisor

_HOMES = {
    "IpclockerError": "errors",
    "LockBusy": "errors",
    "LockLost": "errors",
    "LockServer": "lock.server.server",
    "Locker": "lock.client.locker",
    "NotHeld": "errors",
    "PidServer": "pid.server",
    "PidStat": "pid.client",
    "ProgramFailed": "errors",
    "ProcManager": "prefork.manager",
    "ServerRefused": "errors",
    "ServerUnavailable": "errors",
    "Supervisor": "supervise.supervisor",
    "UsageError": "errors",
}
__all__ = [
    "IpclockerError",
    "LockBusy",
    "LockLost",
    "LockServer",
    "Locker",
    "NotHeld",
    "PidServer",
    "PidStat",
    "ProcManager",
    "ProgramFailed",
    "ServerRefused",
    "ServerUnavailable",
    "Supervisor",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a tool pays only for what it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
