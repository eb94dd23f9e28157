"""lockersh, the process that stays beside the command."""

from __future__ import annotations

from ..errors import LockBusy
from ..lock.client.settings import LockSettings
from ..process.spawn import CommandProcess
from ..run.options import RunOptions
from ..run.under_lock import list_locks, run_locked, trace_links


def stay(child: CommandProcess) -> int:
    """Do what the command line says; the exit code, unless it ends as the command did."""
    options = child.options()
    if options is None:
        return child.exit_code()
    settings = LockSettings(
        host=options["host"],
        port=options["port"],
        path=options["path"],
        lock=options["lock"],
        all=options["all"],
        timeout=options["hold"],
        lease=options["lease"],
        command=options["command"],
        connect_tries=options["connect_tries"],
        connect_delay=options["connect_delay"],
        pid=child.pid,
        autounlock=True,
    )
    if options["debug"]:
        trace_links()
    if options["locklist"]:
        list_locks(settings)
        return 0
    try:
        return run_locked(
            child,
            settings,
            RunOptions(
                wait=options["wait"],
                release_within=options["release_within"],
                lost_signal=options["lost_signal"],
                on_lost=options["on_lost"],
                verbose=options["verbose"],
            ),
        )
    except LockBusy as busy:
        busy.exit_code = options["busy_code"]
        raise
