"""Init scripts for hosts without systemd: actions, exit codes and header as the Linux Standard Base has them."""

from __future__ import annotations

from typing import Any

from ..errors import UsageError
from ..version import VERSION
from .quoting import shell_words
from .systemd_units import DAEMONS

# LSB 5, "Init Script Actions", "Comment Conventions for Init Scripts". @WORD@ is filled in.
_SCRIPT = r"""#!/bin/sh
### BEGIN INIT INFO
# Provides:          @NAME@
# Required-Start:    $remote_fs $network
# Required-Stop:     $remote_fs $network
# Should-Start:      $syslog $named
# Should-Stop:       $syslog $named
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: @WHAT@
# Description:       @WHAT@ (ipclocker @NAME@)
### END INIT INFO
# chkconfig: 2345 20 80
# description: @WHAT@ (ipclocker @NAME@)
#
# Made by ipclocker @VERSION@. To install it:
#   ipclocker units @NAME@ --sysv > /etc/init.d/@NAME@ && chmod 755 /etc/init.d/@NAME@
#   update-rc.d @NAME@ defaults (Debian) or chkconfig --add @NAME@ (Red Hat)
#   /etc/init.d/@NAME@ start
# To change it: set these four in /etc/default/@NAME@ or /etc/sysconfig/@NAME@.

DAEMON=@DAEMON@
PIDFILE=/run/@NAME@.pid
OPTIONS='' # further ones, without quotes and spaces in them
END_WITHIN=100 # seconds

for file in "${DEFAULTS:-/etc/default/@NAME@}" /etc/sysconfig/@NAME@; do
    # shellcheck source=/dev/null
    if [ -r "$file" ]; then . "$file"; fi
done

# Whether it runs, and as which process. A pid file may be left over, and its number be another process's by now.
running() {
    pid=$(cat "$PIDFILE" 2>/dev/null)
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    is_ours
}

is_ours() {
    if [ -r "/proc/$$/cmdline" ]; then
        { tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qxF -e "$PIDFILE"
    else
        kill -0 "$pid" 2>/dev/null
    fi
}

start() {
    if running; then
        echo "@NAME@ runs already: process $pid"
        return 0
    fi
    if [ ! -x "$DAEMON" ]; then
        echo "@NAME@: there is no program $DAEMON" >&2
        return 5
    fi
    # shellcheck disable=SC2016,SC2086 # words are what they are, and OPTIONS is several
    "$DAEMON" @WORDS@ $OPTIONS || return 1
    running
    echo "@NAME@ is started: process $pid"
}

stop() {
    if ! running; then
        echo "@NAME@ does not run"
        return 0
    fi
    kill -TERM "$pid" || ! is_ours || return 4
    tenths=0
    while is_ours; do
        if [ "$tenths" -ge "$((END_WITHIN * 10))" ]; then
            echo "@NAME@: process $pid has not ended within $END_WITHIN s" >&2
            return 1
        fi
        sleep 0.1 2>/dev/null || sleep 1
        tenths=$((tenths + 1))
    done
    echo "@NAME@ is stopped"
}

reload() {
    if ! running; then
        echo "@NAME@ does not run" >&2
        return 7
    fi
    kill -HUP "$pid" || return 4
    echo "@NAME@ is told to start anew: process $pid"
}

status() {
    if running; then
        echo "@NAME@ runs: process $pid"
    elif [ -e "$PIDFILE" ]; then
        echo "@NAME@ is dead, and has left $PIDFILE"
        return 1
    else
        echo "@NAME@ does not run"
        return 3
    fi
}

case $1 in
    start | stop | status | reload) "$1" ;;
    force-reload) reload ;;
    restart) stop && start ;;
    try-restart | condrestart) if running; then stop && start; fi ;;
    *)
        echo "Usage: $0 start|stop|restart|try-restart|reload|force-reload|status" >&2
        exit 2
        ;;
esac
"""


def init_script(tool: str, program: list[str], words: list[str], options: dict[str, Any]) -> str:
    """Make the init script of a daemon: `program` are the words that start it, `words` what follows.

    `options` are the options that `words` stand for. Raises UsageError for a daemon or an option that no init script
    can have.
    """
    daemon = DAEMONS[tool]
    if not daemon.background:
        raise UsageError(f"{tool} stays in the foreground, which no init script can wait for: run it by supervise")
    for option, why in (("nofork", "the script needs it in the background"), ("pid_file", "set PIDFILE instead")):
        if options.get(option):
            raise UsageError(f"--{option.replace('_', '-')} is the script's to give: {why}")
    fixed = ['--pid-file "$PIDFILE"', shell_words(words)]
    places = {
        "NAME": tool,
        "WHAT": daemon.what,
        "VERSION": VERSION,
        "DAEMON": shell_words(program[:1]),
        "WORDS": " ".join(filter(None, [shell_words(program[1:]), *fixed])),
    }
    script = _SCRIPT
    for place, text in places.items():
        script = script.replace(f"@{place}@", text)
    return script
