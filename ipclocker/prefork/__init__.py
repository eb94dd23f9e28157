"""The functions of FCGI::ProcManager: each is that method of one ProcManager, which is made when it is first needed.

from ipclocker.prefork import pm_manage, pm_pre_dispatch, pm_post_dispatch
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from .manager import ProcManager

Default: type[ProcManager] = ProcManager  # the class of that one; another may be set before the first call
_manager: ProcManager | None = None


def self_or_default(manager: ProcManager | None = None) -> ProcManager:
    """Return the manager given, or else the one that the functions of this module use."""
    global _manager
    if manager is not None:
        return manager
    if _manager is None:
        _manager = Default()
    return _manager


if TYPE_CHECKING:
    _any = self_or_default()
    handling_init = _any.handling_init
    pm_abort = _any.pm_abort
    pm_change_process_name = _any.pm_change_process_name
    pm_die = _any.pm_die
    pm_exit = _any.pm_exit
    pm_manage = _any.pm_manage
    pm_notify = _any.pm_notify
    pm_parameter = _any.pm_parameter
    pm_post_dispatch = _any.pm_post_dispatch
    pm_pre_dispatch = _any.pm_pre_dispatch
    pm_received_signal = _any.pm_received_signal
    pm_remove_pid_file = _any.pm_remove_pid_file
    pm_wait = _any.pm_wait
    pm_warn = _any.pm_warn
    pm_write_pid_file = _any.pm_write_pid_file
    sig_handler = _any.sig_handler
else:

    def _functions() -> set[str]:
        return {name for name in dir(ProcManager) if name.startswith("pm_")} | {"handling_init", "sig_handler"}

    def __dir__() -> list[str]:
        return sorted(globals().keys() | _functions())

    def __getattr__(name: str) -> Any:
        if name not in _functions():
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

        @wraps(getattr(ProcManager, name))
        def function(*words: Any, **more: Any) -> Any:
            return getattr(self_or_default(), name)(*words, **more)

        return function
