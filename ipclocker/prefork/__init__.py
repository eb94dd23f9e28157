"""The functions of FCGI::ProcManager: the methods of one ProcManager, which is made when it is first needed.

from ipclocker.prefork import pm_manage, pm_pre_dispatch, pm_post_dispatch
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from .manager import ProcManager
from .parameters import Parameters

if TYPE_CHECKING:
    from typing import Unpack

Default: type[ProcManager] = ProcManager  # what the one is, if it is set to another class before the first call
_manager: ProcManager | None = None


def self_or_default(manager: ProcManager | None = None) -> ProcManager:
    """The manager given, or else the one that the functions below are about."""
    global _manager
    if manager is not None:
        return manager
    if _manager is None:
        _manager = Default()
    return _manager


def pm_manage(**parameters: Unpack[Parameters]) -> int:
    """See ProcManager."""
    return self_or_default().pm_manage(**parameters)


def pm_die(msg: str = "", n: int = 0) -> NoReturn:
    """See ProcManager."""
    self_or_default().pm_die(msg, n)


def pm_wait() -> int | None:
    """See ProcManager."""
    return self_or_default().pm_wait()


def pm_write_pid_file(fname: str | None = None) -> None:
    """See ProcManager."""
    self_or_default().pm_write_pid_file(fname)


def pm_remove_pid_file(fname: str | None = None) -> bool:
    """See ProcManager."""
    return self_or_default().pm_remove_pid_file(fname)


def handling_init() -> None:
    """See ProcManager."""
    self_or_default().handling_init()


def pm_pre_dispatch() -> None:
    """See ProcManager."""
    self_or_default().pm_pre_dispatch()


def pm_post_dispatch() -> None:
    """See ProcManager."""
    self_or_default().pm_post_dispatch()


def sig_handler(name: str) -> None:
    """See ProcManager."""
    self_or_default().sig_handler(name)


def pm_change_process_name(name: str | None) -> None:
    """See ProcManager."""
    self_or_default().pm_change_process_name(name)


def pm_received_signal(sig: str | None = None, received: bool = False) -> Any:
    """See ProcManager."""
    return self_or_default().pm_received_signal(sig, received)


def pm_parameter(key: str, value: object = None) -> Any:
    """See ProcManager."""
    return self_or_default().pm_parameter(key, value)


def pm_warn(msg: str) -> None:
    """See ProcManager."""
    self_or_default().pm_warn(msg)


def pm_notify(msg: str) -> None:
    """See ProcManager."""
    self_or_default().pm_notify(msg)


def pm_exit(msg: str, n: int = 0) -> NoReturn:
    """See ProcManager."""
    self_or_default().pm_exit(msg, n)


def pm_abort(msg: str, n: int = 1) -> NoReturn:
    """See ProcManager."""
    self_or_default().pm_abort(msg, n)
