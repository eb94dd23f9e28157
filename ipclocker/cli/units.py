"""units: what starts the daemons at boot: systemd units and init scripts."""

from __future__ import annotations

import os
import sys

from ..errors import OK, UsageError
from ..net.text import encode_text
from ..process.stderr import print_stderr
from ..service_files.init_script import init_script
from ..service_files.own_command import own_command
from ..service_files.systemd_units import DAEMONS, etcd_files, hides, service_unit, socket_unit
from . import TOOLS, command_lines
from .command_line import CommandLine, argument, flag

_DAEMONS = [tool for tool in DAEMONS if tool in TOOLS]


class Units(
    CommandLine,
    name="ipclocker units",
    example="ipclocker units lockerd -- --host 0.0.0.0 >/etc/systemd/system/lockerd.service",
    interspersed=True,
):
    """Print what starts a daemon at boot: a systemd unit, or an init script.

    The daemon is this very file, at the place where it is now; its first lines say where to put what is printed. With
    --socket systemd opens the sockets that the options name, so that no client is turned away while the daemon is
    started or restarted; the .service unit is the same with and without it. (Not for lockerd with --etcd: one that
    stands by has to refuse clients.)
    """

    words: list[str] = argument(
        "[TOOL [-- OPTIONS...]]",
        f"The daemon, {' or '.join(_DAEMONS)}, and options that it is to be started with.",
        many=True,
    )
    socket: bool = flag("Print the .socket unit that goes with the service: systemd listens.")
    sysv: bool = flag("Print an init script, for a host without systemd.")

    def run(self) -> int:
        """Print a unit or a script; the exit code."""
        if not self.words:
            raise self.wrong(f"say which daemon: {', '.join(_DAEMONS)}")
        tool, *options = self.words
        if tool not in _DAEMONS:
            raise UsageError(f"there is no daemon '{tool}': it is one of {', '.join(_DAEMONS)}")
        if self.socket and self.sysv:
            raise self.wrong("--socket and --sysv were given: choose one of them")
        meaning = vars(command_lines(tool)[0].read(options))
        program = own_command(tool, TOOLS)
        if self.sysv:
            text = init_script(tool, program, options, meaning)
        elif self.socket:
            text = socket_unit(tool, options, meaning)
        else:
            text = service_unit(tool, program, options, meaning)
            files = etcd_files(meaning) if meaning.get("etcd") else []
            for path in files:
                if hides(tool, path):
                    print_stderr(f"units: the service will not see {path}: have it below /etc")
            for path in filter(os.path.isabs, program):
                if hides(tool, path):
                    print_stderr(f"units: the service will not see {path}: have it below /usr/local, and call it there")
        sys.stdout.buffer.write(encode_text(text))  # a name may have bytes that are no characters
        return OK


COMMAND_LINES = (Units,)
