"""systemd's unit files for the daemons: a table with a row for each tool, and the text that is made from it.

How far a tool is confined follows from what it does. lockerd and pidstatd need nothing but sockets, what /proc shows to
everybody, and a place for their state: all else is taken from them. They have to see the host's processes, so nothing
may hide those (ProtectProc=, ProcSubset=, PrivatePIDs=). supervise and prefork start programs of other people, of which
nothing is known: from them is taken only what no usual program needs.

The server itself says that the service is ready and alive (daemon/sd_notify.py), so there are no pid files; the log
goes to the journal, which adds the time (daemon/log.py).
"""

from __future__ import annotations

import os
import shlex
from typing import Any, Callable, NamedTuple, Optional

from ..errors import UsageError
from ..version import VERSION
from .quoting import command_line, setting
from .systemd_sockets import lockerd_sockets, pidstatd_sockets, prefork_sockets

_CONFINED = """\
LimitNOFILE=524288

# A user that exists while this runs, and its folders: all that it can write to.
DynamicUser=yes
User={tool}
UMask=0077
RuntimeDirectory={tool}
CacheDirectory={tool}
Environment=IPCLOCKER_CACHE=%C/{tool}
{more}
# Nothing but sockets and /proc, in which it has to see all processes of this host.
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
# If all who ask are in networks that are known, name them:
#IPAddressDeny=any
#IPAddressAllow=localhost 192.0.2.0/24
"""

_OTHERS_PROGRAMS = """\
# The signal to end goes to {tool} alone, which ends its programs in its own way, and may take that long.
KillMode=mixed
TimeoutStopSec=90

# The programs run as root unless you name a user:
#User=www-data
# What hardly any program needs is taken from them; take away more if yours don't need it.
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
RestrictRealtime=yes
LockPersonality=yes
{more}"""


class UnitSpec(NamedTuple):
    """The row of a tool that is a daemon.

    what: one line for people
    confinement: lines of [Service], which others share
    more: lines that are its own
    foreground: the options by which it stays in the foreground
    notify: the processes of the service that may speak to systemd (NotifyAccess=)
    sockets: makes the lines of [Socket] from its options, if systemd can open its sockets
    background: it goes to the background by itself, as init scripts need it
    """

    what: str
    confinement: str
    more: str = ""
    foreground: tuple[str, ...] = ("--nofork",)
    notify: str = "main"
    sockets: Optional[Callable[[dict[str, Any]], list[str]]] = None
    background: bool = True


DAEMONS = {
    "lockerd": UnitSpec(
        "Lock server of a cluster",
        _CONFINED,
        # Locks are kept where a lockerd that was started by root has them, too.
        "StateDirectory=ipclocker\nStateDirectoryMode=0700\n",
        sockets=lockerd_sockets,
    ),
    "pidstatd": UnitSpec(
        "Server that says which processes of this host exist",
        _CONFINED,
        # Without that right it sees the processes of its own pid namespace only (pid/namespaces.py).
        "# On a host with containers: with the right to look into all processes it answers for theirs, too. So when a\n"
        "# container is killed, the locks of its commands come free.\n"
        "#PrivateUsers=no\n"
        "#CapabilityBoundingSet=CAP_SYS_PTRACE\n"
        "#AmbientCapabilities=CAP_SYS_PTRACE\n",
        sockets=pidstatd_sockets,
    ),
    "supervise": UnitSpec("Programs that are kept running", _OTHERS_PROGRAMS, notify="all"),
    "prefork": UnitSpec(
        "FastCGI programs that share a socket",
        _OTHERS_PROGRAMS,
        "NoNewPrivileges=yes\nPrivateTmp=yes\nProtectSystem=full\n",
        foreground=(),
        sockets=prefork_sockets,
        background=False,
    ),
}

_RUN = ("/run", "/var/run")
# Folders that PrivateTmp= and ProtectHome= replace by others.
_HIDDEN = {"PrivateTmp=yes": ("/tmp/", "/var/tmp/"), "ProtectHome=yes": ("/home/", "/root/", "/run/user/")}


def hides(tool: str, path: str) -> bool:
    """Return True if a daemon's service does not see the file of that name."""
    lines = DAEMONS[tool].confinement + DAEMONS[tool].more
    folders = [folder for line, hidden in _HIDDEN.items() if line in lines for folder in hidden]
    return any(name.startswith(folder) for folder in folders for name in (path, os.path.realpath(path)))


def service_unit(tool: str, program: list[str], words: list[str], options: dict[str, Any]) -> str:
    """Make the .service unit of a daemon that is started by `program` and further words, which stand for `options`.

    Raises UsageError.
    """
    daemon = DAEMONS[tool]
    with_etcd = bool(options.get("etcd"))
    start = command_line(program, [*daemon.foreground, *words])
    return f"""{_head(tool, "service", words)}
[Unit]
Description={daemon.what} (ipclocker {tool})
Wants=network-online.target
After=network-online.target nss-lookup.target{" etcd.service" if with_etcd else ""}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess={daemon.notify}
ExecStart={start}
ExecReload=/bin/sh -c "kill -HUP $MAINPID"
Restart=on-failure
RestartSec=2
WatchdogSec=30
SyslogIdentifier={tool}
{_etcd_lines(tool, options) if with_etcd else ""}{daemon.confinement.format(tool=tool, more=daemon.more)}
[Install]
WantedBy=multi-user.target
"""


def etcd_files(options: dict[str, Any]) -> list[str]:
    """List the files of these options that lockerd reads to reach etcd. Raises UsageError for a relative name."""
    files = [options[f"etcd_{name}"] for name in ("cacert", "cert", "key", "password_file")]
    for file in filter(None, files):
        if not os.path.isabs(file):
            raise UsageError(f"a service is in no folder of yours: write the whole name of '{file}'")
    return list(filter(None, files))


def _etcd_lines(tool: str, options: dict[str, Any]) -> str:
    """Make the lines of [Service] for a daemon that waits for etcd. Raises UsageError."""
    for name, given in (("--import", options["import_file"]), ("--accept-restored", options["accept_restored"])):
        if given:
            raise UsageError(f"{name} is for once, and not for each start of a service: run lockerd with it by hand")
    lines = "# It waits for an etcd that is not there yet, and says so (systemctl status).\nTimeoutStartSec=infinity\n"
    files = etcd_files(options)
    if files:
        named = " ".join(map(setting, files))
        lines += f"# The user {tool} has to be able to read {named}; if a group is, name it:\n"
        lines += "#SupplementaryGroups=etcd\n"
    return lines


def socket_unit(tool: str, words: list[str], options: dict[str, Any]) -> str:
    """Make the .socket unit of a daemon with these words, which stand for these options. Raises UsageError."""
    daemon = DAEMONS[tool]
    if daemon.sockets is None:
        raise UsageError(f"{tool} serves on no socket that systemd could open for it: leave out --socket")
    if options.get("etcd"):
        raise UsageError(
            "with --etcd there is no socket unit, since a lockerd that stands by has to refuse clients: leave out "
            "--socket"
        )
    lines = daemon.sockets(options)
    own = tuple(f"{place}{folder}/{tool}/" for place in ("ListenStream=", "ListenDatagram=") for folder in _RUN)
    if "RuntimeDirectory=" in daemon.confinement and any(line.startswith(own) for line in lines):
        raise UsageError(
            f"/run/{tool} is the service's own folder, and goes when that stops: name another for its socket"
        )
    described = "\n".join(lines)
    return f"""{_head(tool, "socket", words)}
# {tool}.service has to be there, too: ipclocker units {tool}
[Unit]
Description={daemon.what}: the socket (ipclocker {tool})

[Socket]
{described}

[Install]
WantedBy=sockets.target
"""


def _head(tool: str, kind: str, words: list[str]) -> str:
    option = ["--socket"] if kind == "socket" else []
    written = shlex.join(["ipclocker", "units", tool, *option, *(["--", *words] if words else [])])
    return f"""# Made by ipclocker {VERSION}. To install it:
#   {written if written.isprintable() else "ipclocker units ..."} > /etc/systemd/system/{tool}.{kind}
#   systemctl daemon-reload && systemctl enable --now {tool}.{kind}
# To change it: systemctl edit {tool}.{kind}"""
