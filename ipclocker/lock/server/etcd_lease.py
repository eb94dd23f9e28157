"""Leases of etcd: what is bound to one goes when it is not renewed in time, or revoked."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from typing import Any, Callable, Union

from ..storage.etcd_client import EtcdRefused

Body = Union[Mapping[str, Any], bytes]  # an object, or its JSON
# Path and body of a call, and the seconds that its answer may take; raises what an EtcdClient does.
Call = Callable[[str, Body, float], dict[str, Any]]
_NOT_FOUND = 5  # codes of etcd
_EXISTS = 9


def new_number() -> str:
    """Return a number for a new lease. It is ours to choose, so that one whose answer was lost can be revoked."""
    return str(secrets.randbits(62) + 1)


def grant(call: Call, number: str, ttl: int, within: float) -> int:
    """Have a lease of `ttl` seconds; return for how many seconds it surely counts."""
    try:
        answer = call("lease/grant", {"TTL": str(ttl), "ID": number}, within)
    except EtcdRefused as problem:
        if problem.code != _EXISTS:
            raise
        return ttl  # an answer was lost on its way, and it was asked for again
    return min(ttl, _seconds(answer))


def renew(call: Call, number: str, ttl: int, within: float) -> int:
    """Renew a lease; return for how many seconds it counts from the sending on, 0 if there is no such lease.

    etcd answers for one that is gone with status 200 and no TTL.
    """
    try:
        answer = call("lease/keepalive", {"ID": number}, within)
    except EtcdRefused as problem:
        if problem.code != _NOT_FOUND:
            raise
        return 0
    result = answer.get("result")
    return min(ttl, _seconds(result)) if isinstance(result, dict) else 0


def revoke(call: Call, number: str, within: float) -> None:
    """Revoke a lease. One that etcd refuses to revoke, as when there is none, is let be: it ends by itself."""
    with contextlib.suppress(EtcdRefused):
        call("lease/revoke", {"ID": number}, within)


def _seconds(answer: Mapping[str, Any]) -> int:
    try:
        return max(int(answer.get("TTL", 0)), 0)
    except (TypeError, ValueError):
        return 0
