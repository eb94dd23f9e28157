"""Locks across hosts, and with them a pid service and programs that are kept alive. The names below are the library."""

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
        StateError,
        UsageError,
    )
    from .lock.client.locker import Locker
    from .lock.server.server import LockServer
    from .pid.client import PidStat
    from .pid.server import PidServer
    from .prefork.manager import ProcManager
    from .supervise.supervisor import Supervisor

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
    "StateError",
    "Supervisor",
    "UsageError",
]
_MODULES = {  # where the names are
    **dict.fromkeys(__all__, "errors"),
    "LockServer": "lock.server.server",
    "Locker": "lock.client.locker",
    "PidServer": "pid.server",
    "PidStat": "pid.client",
    "ProcManager": "prefork.manager",
    "Supervisor": "supervise.supervisor",
}


if not TYPE_CHECKING:  # so that a type checker knows the names above only, and reports a misspelt one

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used: a tool pays only for what it needs."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    """List the public names, also those that nobody has used yet."""
    return sorted({*globals(), *__all__})
