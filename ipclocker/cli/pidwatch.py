"""pidwatch, the process that stays beside the command, or in the background."""

from __future__ import annotations

from ..process.spawn import CommandProcess
from ..process.termination import KillPolicy
from ..run.remote_monitor import WatchTarget
from ..run.while_alive import run_watched, watch_in_background


def stay(child: CommandProcess) -> int:
    """Do what the command line says; the exit code, unless it ends as the command did."""
    options = child.options()
    if options is None:
        return child.exit_code()
    target, way = WatchTarget(*options["target"]), KillPolicy(*options["way"])
    if options["foreground"] is None:
        run_watched(child, target, way, options["additions"], options["debug"])
    child.dismiss()
    return watch_in_background(options["foreground"], target, way, options["debug"])
