"""The checks of doctor: each asks the probes for facts about the host, and says what they mean and what to do.

A check is a function of the probes (probes.py) that returns findings. It may have to wait, for
a silent resolver for example; so all checks run at once, each in a thread, and doctor waits no longer than PATIENCE.
"""

from __future__ import annotations

import ipaddress
from calendar import timegm
from collections.abc import Iterable
from functools import partial
from time import strptime
from typing import Callable

from ..errors import IpclockerError
from ..lock.client.locker import PingStatus
from ..lock.snapshot import SERVES, STANDS_BY, HostState
from ..version import BUILT_AFTER
from .at_once import at_once
from .etcd_checks import judge
from .finding import FAILED as FAILED  # these are for those who call `examine`, too
from .finding import OK as OK
from .finding import WARNING as WARNING
from .finding import Finding as Finding
from .probes import ThisHost

PATIENCE = 10.0  # seconds for all checks together: a person waits for them
REVERSE_PATIENCE = 4.0  # seconds for the names of addresses, on which nothing depends
ANSWER_PATIENCE = 8.0  # seconds for servers; less than PATIENCE, so that a silent one is reported by its name
OLDEST = (3, 9)
NOT_BEFORE = timegm(strptime(BUILT_AFTER, "%Y-%m-%d"))  # seconds since 1970: a time that is surely over
FEW_DESCRIPTORS, MANY_DESCRIPTORS = 256, 4096  # less than the first: too few for a cluster; up to the second: few
# Locks, and flushes to the disk, are not reliable on these (sqlite.org/howtocorrupt.html).
NETWORK_FILE_SYSTEMS = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.cephfs", "fuse.glusterfs", "fuse.sshfs", "gfs2"),
    *("glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs"),
}


Check = Callable[[ThisHost], list[Finding]]


def examine(probes: ThisHost, checks: dict[str, Check], patience: float = PATIENCE) -> list[Finding]:
    """Run all checks at once; return their findings in order. It takes `patience` seconds at most."""
    advice = "find out what hangs: the resolver (/etc/resolv.conf), a file system, or a firewall that drops packets"
    found = at_once({name: partial(_guarded, name, check, probes) for name, check in checks.items()}, patience)
    findings: list[Finding] = []
    for name in checks:
        findings += found.get(name, [Finding(name, FAILED, f"no answer within {patience:g} s", advice)])
    return findings


def _guarded(name: str, check: Check, probes: ThisHost) -> list[Finding]:
    try:
        return check(probes)
    except (OSError, ValueError, IpclockerError) as error:
        return [Finding(name, FAILED, f"could not be checked: {error}", "look for what denies it")]


def _answers(ask: Callable[[str], PingStatus], hosts: Iterable[str]) -> list[tuple[str, PingStatus]]:
    """Ask the servers of these hosts, all at once."""
    silent: PingStatus = {"ok": False, "status": f"no answer within {ANSWER_PATIENCE:g} s"}
    calls = {host: partial(ask, host) for host in hosts}
    found = at_once(calls, ANSWER_PATIENCE)
    return [(host, found.get(host, silent)) for host in calls]


def python(probes: ThisHost) -> list[Finding]:
    """Check the interpreter."""
    version, executable, isolated = probes.python()
    found = f"Python {'.'.join(map(str, version))}, {executable}"
    if version < OLDEST:
        advice = "install Python 3.9 or newer, and set IPCLOCKER_PYTHON to it"
        return [Finding("python", FAILED, found, advice)]
    if not isolated:
        advice = "run the built file: it starts Python by -IS, so that nothing on the host can change it"
        return [Finding("python", WARNING, f"{found}, not isolated", advice)]
    return [Finding("python", OK, f"{found}, isolated")]


def unpacking(probes: ThisHost) -> list[Finding]:
    """Check that the compiled modules can be kept."""
    folder, possible = probes.cache()
    if folder:
        return [Finding("unpacking", OK, f"the modules are kept in {folder}")]
    if folder is None:
        found = f"the modules can be kept in none of {', '.join(possible)}, so each start takes longer"
        advice = "set IPCLOCKER_CACHE to a folder that this user, and nobody else, can write"
        return [Finding("unpacking", WARNING, found, advice)]
    return [Finding("unpacking", OK, "nothing to unpack: this is no built file")]


def port(probes: ThisHost, service: str, ask: Callable[[str], PingStatus], setting: str) -> list[Finding]:
    """Check that a server's port is free here, or that the server has it: `ask` asks it, `setting` says the port."""
    number, listeners = probes.listeners(service)
    if not number:
        return []
    name = f"port {number}"
    if listeners is None:
        return [Finding(name, OK, "who has it can't be seen on this system")]
    if not listeners:
        return [Finding(name, OK, f"free: no {service} runs here")]
    who = ", ".join(dict.fromkeys(str(listener) for listener in listeners))
    if any(ask(listener.ask_at)["ok"] for listener in listeners):
        return [Finding(name, OK, f"{service} has it: {who}")]
    advice = f"end that, or run {service} with another --port, which all hosts have to know ({setting})"
    return [Finding(name, FAILED, f"taken by one that does not answer as {service} does: {who}", advice)]


def lockerd(probes: ThisHost) -> list[Finding]:
    """Check that the lock servers answer; one that does is enough. If they share a lock space, it has to be one."""
    answers = _answers(probes.lockerd, probes.hosts)
    some = any(answer["ok"] for _, answer in answers)
    advice = "start it there: ipclocker lockerd --host 0.0.0.0; let the network's firewalls pass its TCP port"
    if not probes.named:
        advice = "start it: ipclocker lockerd; or say where it is: IPCLOCKER_HOST=HOST, or doctor --host HOST"
    states = probes.lock_hosts() if some and len(answers) > 1 else []
    standing_by = {host for host, state in zip(probes.hosts, states) if state.state == STANDS_BY}
    findings = []
    for host, answer in answers:
        name = f"lockerd of {host}"
        if answer["ok"]:
            findings.append(Finding(name, OK, answer["status"]))
        elif host in standing_by:
            findings.append(Finding(name, OK, "stands by: another one serves the lock space that they share"))
        else:
            findings.append(Finding(name, WARNING if some else FAILED, answer["status"], advice))
    return findings + _lock_spaces(states)


def _lock_spaces(states: list[HostState]) -> list[Finding]:
    """Check that a list with hosts that share a lock space has no others: a lock there excludes nobody here."""
    if not any(state.is_replicated for state in states):
        return []
    first = next(state for state in states if state.is_replicated)
    others = [state.server for state in states if state.state == SERVES and state.space != first.space]
    if not others:
        return [Finding("lock space", OK, f"one for all that answer: {first.space}")]
    found = f"{', '.join(others)} does not serve the lock space of {first.server} ({first.space})"
    advice = "take it out of the list of hosts: two commands that reach different lock spaces do not exclude each other"
    return [Finding("lock space", FAILED, found, advice)]


def etcd(probes: ThisHost) -> list[Finding]:
    """Check the etcd that a lockerd with these options would use."""
    facts = probes.etcd()
    return [] if facts is None else judge(facts)


def pidstatd(probes: ThisHost) -> list[Finding]:
    """Check that the pid servers answer: this host's, which the lock server asks, and those of the lock servers."""
    findings = []
    for host, answer in _answers(probes.pidstatd, [*probes.hosts, "localhost"]):
        name = f"pidstatd of {host}"
        if answer["ok"]:
            findings.append(Finding(name, OK, answer["status"]))
        elif host != "localhost":
            advice = "start it there: ipclocker pidstatd; let the network's firewalls pass its UDP port"
            findings.append(Finding(name, FAILED, answer["status"], advice))
        elif probes.named and probes.hosts != ["localhost"]:
            advice = "start it: ipclocker pidstatd; else locks of this host's processes stay when these are killed"
            findings.append(Finding(name, WARNING, answer["status"], advice))
        else:
            found = f"{answer['status']}; it is not needed as long as lockerd serves this host only"
            findings.append(Finding(name, OK, found))
    return findings


def host_name(probes: ThisHost) -> list[Finding]:
    """Check that the host's name leads to the host, here and elsewhere."""
    name = probes.host_name()
    if name in ("", "localhost", "(none)"):
        advice = "give it one: hostnamectl set-hostname NAME"
        return [Finding("host name", FAILED, "this host has no name of its own", advice)]
    line = f"put a line with its address and '{name}' into /etc/hosts, or an entry into the name service"
    try:
        addresses = probes.addresses(name)
    except OSError as error:
        return [Finding("host name", FAILED, f"'{name}' is not known here: {error.strerror or error}", line)]
    shown = f"'{name}' is {', '.join(addresses)}"
    own = [address for address in addresses if probes.is_own_address(address)]
    if not own:
        return [Finding("host name", FAILED, f"{shown}, which is no address of this host", line)]
    if all(map(_is_loopback, own)):
        found = f"{shown}, which leads other hosts to themselves"
        advice = f"if other hosts are to reach this one, {line}, instead of 127.0.1.1"
        return [Finding("host name", WARNING, found, advice)]
    others = [address for address in addresses if address not in own]
    if others:
        found = f"{shown}, of which {', '.join(others)} is not this host's"
        return [
            Finding("host name", WARNING, found, "take that away: whoever asks for this host may be led to another")
        ]
    return [Finding("host name", OK, shown)]


def own_address(probes: ThisHost) -> list[Finding]:
    """Check that a look-up of the host's addresses gives its name. A silent name server is a warning only."""
    name = probes.host_name()
    try:
        addresses = [address for address in probes.addresses(name) if not _is_loopback(address)]
    except OSError:
        return []  # the check of the name reports that
    found = at_once({address: partial(probes.names, address) for address in addresses}, REVERSE_PATIENCE)
    findings = []
    for address in addresses:
        names = found.get(address)
        if names is not None and _short(name) in map(_short, names):
            findings.append(Finding(f"address {address}", OK, f"comes back as {', '.join(names)}"))
            continue
        said = "has not come back: no name server answers" if names is None else "comes back as no name"
        if names:
            said = f"comes back as {', '.join(names)}, not as '{name}'"
        advice = (
            f"put a line '{address} {name}' into /etc/hosts, or mend the name service; only names in messages differ"
        )
        findings.append(Finding(f"address {address}", WARNING, said, advice))
    return findings


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _short(name: str) -> str:
    return name.partition(".")[0].lower()


def pidfd(probes: ThisHost) -> list[Finding]:
    """Check that there are pidfds, by which the end of a process is seen at once."""
    why = probes.pidfd()
    if why:
        found = f"there are no pidfds ({why}): the end of a process is seen by looking again and again"
        return [Finding("pidfd", WARNING, found, "a Linux 5.3 or newer, and a Python that was built on one, have them")]
    return [Finding("pidfd", OK, "there are pidfds: the end of a process is seen at once")]


def clock(probes: ThisHost) -> list[Finding]:
    """Check the clocks."""
    wall, running, boot = probes.clocks()
    if running < 0 or boot + 1e-3 < running:
        found = f"the clocks of this kernel do not go together: monotonic {running:.3f}, since boot {boot:.3f} s"
        return [Finding("clock", FAILED, found, "hold times can't be kept here: report it to who made the kernel")]
    if wall < NOT_BEFORE:
        advice = "set it: date --set, or let a time service do so"
        return [Finding("clock", FAILED, "the date is before this program was made", advice)]
    synchronised = probes.synchronised()
    if synchronised is False:
        found = "nobody keeps the clock right; hold times are not touched by that, but the times in logs are"
        return [Finding("clock", WARNING, found, "run a time service: systemd-timesyncd, chrony or ntpd")]
    how = "kept right by a time service" if synchronised else "whether a time service keeps it can't be asked here"
    return [Finding("clock", OK, f"monotonic; {how}")]


def namespace(probes: ThisHost) -> list[Finding]:
    """Check that all processes of the host can be seen."""
    kind = probes.namespace()
    if kind == "host":
        return [Finding("pid namespace", OK, "the host's: all its processes can be seen")]
    if kind == "own":
        found = "a container's: the host's processes can't be seen, so a pidstatd here knows the container's only"
        advice = "run pidstatd on the host, or in a container with the host's pid namespace (docker run --pid=host)"
        return [Finding("pid namespace", WARNING, found, advice)]
    advice = "mount proc at /proc for this pid namespace; else a number that comes back is taken for the same process"
    return [Finding("pid namespace", WARNING, "unknown: /proc is not there, or is another namespace's", advice)]


def descriptors(probes: ThisHost) -> list[Finding]:
    """Check how many descriptors, so how many clients, a server may have."""
    soft, hard = probes.descriptors()
    shown = "no limit" if hard < 0 else f"{hard} (soft limit {soft}, which servers raise): about as many clients"
    advice = "raise the hard limit: LimitNOFILE= in the unit, nofile in /etc/security/limits.conf"
    if not 0 <= hard < MANY_DESCRIPTORS:
        return [Finding("descriptors", OK, shown)]
    return [Finding("descriptors", FAILED if hard < FEW_DESCRIPTORS else WARNING, shown, advice)]


def state_folder(probes: ThisHost) -> list[Finding]:
    """Check that a lockerd of this user can keep its state."""
    folder, kind, why = probes.state_folder()
    if why:
        advice = f"give it to this user, or name another one: lockerd --state-dir; mkdir -p {folder} as root makes it"
        return [Finding("state folder", FAILED, f"{folder} can't be written: {why}", advice)]
    if kind in NETWORK_FILE_SYSTEMS:
        found = f"{folder} is on a network file system ({kind}), where locks are not safely kept"
        return [Finding("state folder", WARNING, found, "before you run lockerd here, name a local one: --state-dir")]
    return [Finding("state folder", OK, f"{folder} can be written{f', {kind}' if kind else ''}")]


CHECKS: dict[str, Check] = {  # by the names that are reported for one that does not end in time
    "python": python,
    "unpacking": unpacking,
    "port of lockerd": lambda probes: port(probes, "lockerd", probes.lockerd, "IPCLOCKER_PORT"),
    "port of pidstatd": lambda probes: port(probes, "pidstatd", probes.pidstatd, "/etc/services"),
    "lockerd": lockerd,
    "etcd": etcd,
    "pidstatd": pidstatd,
    "host name": host_name,
    "own address": own_address,
    "pidfd": pidfd,
    "clock": clock,
    "pid namespace": namespace,
    "descriptors": descriptors,
    "state folder": state_folder,
}
