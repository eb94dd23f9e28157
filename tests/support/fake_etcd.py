"""What etcd does with a few keys and leases, in memory, on a clock that tests turn, with answers that they lose."""

from __future__ import annotations

import base64
import contextlib
import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

from ipclocker.errors import StateError
from ipclocker.lock.storage.etcd_client import EtcdRefused, EtcdUnavailable

# What may become of a call: it never arrives; it is done, and the answer is lost; it is done later, by `deliver`, if it
# can be done then; it is refused, undone or (as etcd says of what took the last room) done; etcd can't be used at all.
NEVER, UNANSWERED, LATE = "never", "unanswered", "late"
REFUSED, REFUSED_BUT_DONE, UNUSABLE = "refused", "refused, but done", "unusable"


class Entry(NamedTuple):
    """A key's value, what it is bound to, and the revision that made it."""

    value: str
    lease: str
    made: int


class FakeEtcd:
    """The etcd; `call` is what a client's is, but for the time that an answer may take (seconds) as its last word."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.revision = 1
        self.keys: dict[str, Entry] = {}
        self.leases: dict[str, tuple[int, float]] = {}  # ttl and end
        self.troubles: dict[str, list[str]] = defaultdict(list)  # for each path, what becomes of the next calls
        self.refusals: dict[str, int] = {}  # for a path, the code with which an answer is replaced
        self.takes = 0.0  # seconds, half of them before it is done
        self.is_down = False
        self.on_done: Callable[[], None] = lambda: None
        self.calls: list[str] = []  # paths
        self._late: list[tuple[str, Mapping[str, Any]]] = []

    def call(self, path: str, body: Mapping[str, Any] | bytes, within: float) -> dict[str, Any]:
        """Do what is asked for, or what is in `troubles`."""
        if isinstance(body, bytes):
            body = json.loads(body)
        assert isinstance(body, dict), "no JSON object"
        if within <= 0:
            raise EtcdUnavailable("there was no time left")
        self.calls.append(path)
        self.pass_time(min(self.takes, within) / 2)
        trouble = NEVER if self.is_down else self.troubles[path].pop(0) if self.troubles[path] else ""
        if trouble in ("", UNANSWERED, REFUSED_BUT_DONE):
            try:
                answer = self._do(path, body)
            finally:
                self.on_done()
        elif trouble == LATE:
            self._late.append((path, body))
        if path in self.refusals:
            raise EtcdRefused(self.refusals[path], "etcdserver: why")
        if trouble == UNUSABLE:
            raise StateError("a wrong password")
        if trouble in (REFUSED, REFUSED_BUT_DONE):
            raise EtcdRefused(8, "etcdserver: mvcc: database space exceeded")
        if trouble or self.takes > within:
            self.pass_time(within - min(self.takes, within) / 2)
            raise EtcdUnavailable("etcd gave no answer in time", maybe_applied=True)
        self.pass_time(self.takes / 2)
        return answer

    def deliver(self) -> None:
        """Do what is late."""
        late, self._late = self._late, []
        for path, body in late:
            with contextlib.suppress(EtcdRefused):
                self._do(path, body)

    def pass_time(self, seconds: float) -> None:
        """Let time go on; leases end as soon as they may."""
        self.now += seconds
        for lease, (_, end) in list(self.leases.items()):
            if end <= self.now:
                self.revoke(lease)

    def revoke(self, lease: str) -> None:
        """End a lease, and delete what is bound to it."""
        del self.leases[lease]
        self.revision += 1
        self.keys = {key: entry for key, entry in self.keys.items() if entry.lease != lease}

    def _do(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return {"header": {"revision": str(self.revision)}, **getattr(self, f"_{path.replace('/', '_')}")(body)}

    def _lease_grant(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if body["ID"] in self.leases:
            raise EtcdRefused(9, "etcdserver: lease already exists")
        self.leases[body["ID"]] = (int(body["TTL"]), self.now + int(body["TTL"]))
        return {"ID": body["ID"], "TTL": body["TTL"]}

    def _lease_keepalive(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        lease = body["ID"]
        if lease not in self.leases:
            return {"result": {"ID": lease}}
        ttl = self.leases[lease][0]
        self.leases[lease] = (ttl, self.now + ttl)
        return {"result": {"ID": lease, "TTL": str(ttl)}}

    def _lease_revoke(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        self._check_lease(body["ID"])
        self.revoke(body["ID"])
        return {}

    def _kv_range(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        assert "serializable" not in body, "a read of what may be old"
        entry = self.keys.get(_text(body["key"]))
        if entry is None:
            return {}
        value = base64.b64encode(entry.value.encode()).decode()
        return {"kvs": [{"key": body["key"], "value": value, "create_revision": str(entry.made)}], "count": "1"}

    def _kv_put(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        key = _text(body["key"])
        self.revision += 1
        made = self.keys[key].made if key in self.keys else self.revision
        self.keys[key] = Entry(_text(body["value"]), body.get("lease", "0"), made)
        return {}

    def _kv_txn(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        holds = all(map(self._compare, body.get("compare", ())))
        operations = body.get("success" if holds else "failure", ())
        for operation in operations:
            lease = operation.get("request_put", {}).get("lease", "0")
            if lease != "0":
                self._check_lease(lease)
        responses: list[Mapping[str, Any]] = []
        for operation in operations:
            ((name, request),) = operation.items()
            if name == "request_delete_range":
                self.revision += 1
                self.keys.pop(_text(request["key"]), None)
                responses.append({"response_delete_range": {}})
            else:
                kind = name.replace("request_", "")
                responses.append({f"response_{kind}": getattr(self, f"_kv_{kind}")(request)})
        return {**({"succeeded": True} if holds else {}), "responses": responses}

    def _compare(self, compare: Mapping[str, Any]) -> bool:
        assert (compare["target"], compare.get("result", "EQUAL")) == ("CREATE", "EQUAL")
        entry = self.keys.get(_text(compare["key"]))
        return int(compare.get("create_revision", 0)) == (0 if entry is None else entry.made)

    def _check_lease(self, lease: str) -> None:
        if lease not in self.leases:
            raise EtcdRefused(5, "etcdserver: requested lease not found")


def _text(data: str) -> str:
    return base64.b64decode(data).decode()
