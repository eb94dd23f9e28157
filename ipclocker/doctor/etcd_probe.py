"""The facts about an etcd that doctor asks for. Nothing is changed there but one key, which is deleted again."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, Optional, Union

from ..errors import IpclockerError
from ..lock.storage.etcd_client import NO_SPACE, OUT_OF_RANGE, EtcdClient, EtcdRefused
from ..lock.storage.etcd_prefix import find_alien, find_outer, probe, shown
from ..lock.storage.etcd_settings import EtcdSettings
from ..net.address import own_host_name
from .at_once import at_once

_PATIENCE = 1.5  # seconds for one question; there are some ten
_WRITES = 5
_TTL = 60  # seconds, after which etcd deletes the key that is written, if doctor was killed


class EtcdMember(NamedTuple):
    """A member's version, the bytes of its database, and of the most that it may have (0: it does not say)."""

    version: str
    size: int
    quota: int


class EtcdFacts(NamedTuple):
    """All that is asked.

    members: by URL; a text says why one does not answer
    problem: why locks can't be read there, "" if they can; all below is not known then
    revision: of the whole etcd
    compacted: old revisions were dropped at least once
    alarms: their names, such as NOSPACE
    overlap: the prefix, and another one's, where they are one within the other
    write_seconds: median of some transactions; None if none could be made
    write_problem: why not
    """

    members: dict[str, Union[EtcdMember, str]]
    problem: str = ""
    revision: int = 0
    compacted: bool = False
    alarms: tuple[str, ...] = ()
    overlap: str = ""
    write_seconds: Optional[float] = None
    write_problem: str = ""


def ask_etcd(settings: EtcdSettings) -> EtcdFacts:
    """Ask each member, and then the cluster. Raises StateError for files that can't be used, UsageError."""
    settings = settings.checked()
    EtcdClient(settings).close()  # a file that can't be used is none of the members' faults
    calls = {url: partial(_ask_member, settings._replace(urls=(url,))) for url in settings.urls}
    answers = at_once(calls, 2 * _PATIENCE)  # a look-up of a name may take longer
    members = {url: answers.get(url, "no answer in time") for url in calls}
    with contextlib.closing(EtcdClient(_only(settings, members))) as client:
        try:
            mark = probe(client, settings.prefix, _soon())
        except IpclockerError as problem:
            return EtcdFacts(members, str(problem))
        facts = EtcdFacts(members, "", mark.revision, _is_compacted(client), _alarms(client), _overlap(client))
        try:
            return facts._replace(write_seconds=_measure(client))
        except IpclockerError as problem:
            return facts._replace(write_problem=str(problem))


def _only(settings: EtcdSettings, members: dict[str, EtcdMember | str]) -> EtcdSettings:
    """Leave out the members that do not answer, unless it is all of them."""
    urls = tuple(url for url, found in members.items() if isinstance(found, EtcdMember))
    return settings._replace(urls=urls or settings.urls)


def _soon() -> float:
    return time.monotonic() + _PATIENCE


def _ask_member(settings: EtcdSettings) -> EtcdMember | str:
    with contextlib.closing(EtcdClient(settings)) as client:
        try:
            status = client.call("maintenance/status", {}, _soon())
        except IpclockerError as problem:
            return str(problem)
    return EtcdMember(str(status.get("version", "?")), int(status.get("dbSize", 0)), int(status.get("dbSizeQuota", 0)))


def _is_compacted(client: EtcdClient) -> bool:
    """Ask for what was at revision 1: it is there until the first compaction."""
    key = b64encode(client.settings.prefix.encode() + b"format").decode()
    try:
        client.call("kv/range", {"key": key, "revision": "1"}, _soon())
    except EtcdRefused as problem:
        return problem.code == OUT_OF_RANGE
    except IpclockerError:
        return False
    return False


def _alarms(client: EtcdClient) -> tuple[str, ...]:
    try:
        answer = client.call("maintenance/alarm", {"action": "GET"}, _soon())
    except EtcdRefused as problem:
        return ("NOSPACE",) if problem.code == NO_SPACE else ()
    except IpclockerError:
        return ()
    return tuple(sorted({str(alarm.get("alarm", "?")) for alarm in answer.get("alarms", ())}))


def _overlap(client: EtcdClient) -> str:
    """Look for another lock space, or other keys, within the prefix, and for one that it is within."""
    prefix = client.settings.prefix.encode()

    def call(body: bytes) -> dict[str, Any]:
        return client.call("kv/range", body, _soon())

    with contextlib.suppress(IpclockerError):
        outer = find_outer(prefix, call)
        if outer is not None:
            return f"{client.settings.prefix} is within another one's prefix ('{shown(outer)}' is there)"
        alien = find_alien(prefix, call)
        if alien is not None:
            return f"under {client.settings.prefix} there is '{shown(alien)}', which is not of its locks"
    return ""


def _measure(client: EtcdClient) -> float:
    """Return the seconds that a transaction takes, the median of some. Raises IpclockerError."""
    # A key that a lockerd passes over, in a place where it may be allowed to write.
    name = f"{client.settings.prefix}member/doctor on {own_host_name()}, process {os.getpid()}"
    key = b64encode(name.encode("utf-8", "backslashreplace")).decode()
    taken = []
    with _lease(client) as lease:
        for _ in range(_WRITES):
            begin = time.monotonic()
            client.call("kv/txn", {"success": [{"request_put": {"key": key, "lease": lease}}]}, _soon())
            taken.append(time.monotonic() - begin)
    return statistics.median(taken)


@contextlib.contextmanager
def _lease(client: EtcdClient) -> Iterator[str]:
    """Have a lease; what is bound to it is deleted in the end, or after its time."""
    number = str(int.from_bytes(os.urandom(7), "big") + 1)
    try:
        client.call("lease/grant", {"TTL": str(_TTL), "ID": number}, _soon())
        yield number
    finally:
        with contextlib.suppress(IpclockerError):
            client.call("lease/revoke", {"ID": number}, _soon())
