"""The value of the key `leader`: which lockerd leads, and how others find it."""

from __future__ import annotations

import json
from typing import NamedTuple


class Leader(NamedTuple):
    """One attempt to lead, by whom."""

    host: str
    addresses: tuple[str, ...]  # where its clients reach it
    pid: int
    since: float  # seconds since 1970
    version: str
    attempt: str  # random: no two attempts are alike, not even of one process

    def encode(self) -> bytes:
        """Return it as the value that stands in etcd."""
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, value: bytes) -> Leader:
        """Read such a value; what a newer version has added is passed over. Raises ValueError for another one."""
        try:
            fields = json.loads(value)
        except RecursionError as error:
            raise ValueError("too deep") from error
        if not isinstance(fields, dict) or not isinstance(fields.get("host"), str):
            raise ValueError("no host")
        addresses = fields.get("addresses")
        return cls(
            fields["host"],
            tuple(map(str, addresses)) if isinstance(addresses, list) else (),
            fields["pid"] if isinstance(fields.get("pid"), int) else 0,
            float(fields["since"]) if isinstance(fields.get("since"), (int, float)) else 0.0,
            str(fields.get("version", "")),
            str(fields.get("attempt", "")),
        )
