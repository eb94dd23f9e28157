"""What stands under a prefix in etcd beside locks, and whether a lockerd of this version may use that prefix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Optional

from ...errors import StateError
from .etcd_client import EtcdClient, EtcdRefused
from .etcd_requests import Entry, end_of, entries, entry, get, get_range, get_request, ranges, transaction

# Of the keys; it rises only when an older version could misread them. A lockerd that knows 2 writes 1 until it has to
# keep something that needs 2 (etcd_record.py), so that an older one may serve as well during an upgrade.
FORMAT = 2
_NAMES = {b"format", b"space", b"leader", b"import", b"counter", b"served"}
_MOST_BESIDE_LOCKS = 200
CHOOSE = "choose another one with --etcd-prefix"


class Mark(NamedTuple):
    """How far an etcd has come. One that is not that far any more, or is another one, has forgotten locks."""

    cluster: str
    revision: int
    last_token: int


def shown(key: bytes) -> str:
    """Return a key as text for people."""
    return key.decode("utf-8", "backslashreplace")


def describe(client: EtcdClient, prefix: str) -> str:
    """Name the place of a lock space, for people."""
    return f"etcd at {client.location}, under {prefix}"


def unreadable(found: Entry, location: str, why: str = "") -> StateError:
    """Make the error for a key that can't be read."""
    what = why or f"it is {found.value!r:.50}"
    return StateError(
        f"the key '{shown(found.key)}' in {location} can't be read ({what}): look at it with etcdctl, and put it right "
        "or delete it"
    )


def check_format(version: Entry | None, unfinished: Entry | None, location: str) -> None:
    """See that the layout is one that this version knows, and that no import was broken off. Raises StateError."""
    if version is not None and not version.value.isdigit():
        raise unreadable(version, location)
    if version is not None and int(version.value) > FORMAT:
        raise StateError(
            f"the locks in {location} are of format {int(version.value)}, and this lockerd knows {FORMAT}: use a newer "
            "lockerd"
        )
    if unfinished is not None:
        raise StateError(
            f"an import into {location} was not finished ({shown(unfinished.value)}): run lockerd --import again there"
        )


def read_counter(counter: Entry | None, location: str) -> int:
    """Return the last token. Raises StateError."""
    if counter is None:
        return 0
    words = counter.value.split()
    if len(words) != 3 or not all(word.isdigit() for word in words):
        raise unreadable(counter, location)
    return int(words[2])


def probe(client: EtcdClient, prefix: str, deadline: float) -> Mark:
    """Ask etcd how far it has come, and see that a lockerd of this version may use the prefix.

    Raises StateError if not; EtcdUnavailable if it does not answer by the deadline (monotonic).
    """
    location = describe(client, prefix)
    reads = [get(prefix.encode() + name) for name in (b"format", b"import", b"counter")]
    try:
        answer = client.call("kv/txn", transaction([], reads), deadline)
    except EtcdRefused as problem:
        raise StateError(f"{location} can't be used: {problem}") from problem
    version, unfinished, counter = map(entry, ranges(answer))
    check_format(version, unfinished, location)
    return _mark(answer, read_counter(counter, location))


def find_stranger(keys: Iterable[Entry], prefix: bytes) -> Optional[bytes]:
    """Return a key under a prefix that is no member's nor the leader's; they are there before the first lock."""
    for found in keys:
        name = found.key[len(prefix) :]
        if name != b"leader" and not name.startswith(b"member/"):
            return found.key
    return None


def check_is_free(keys: Iterable[Entry], prefix: bytes, location: str, call: Callable[[bytes], dict[str, Any]]) -> None:
    """See that nothing of others is among the keys under a prefix, nor around it, before the first locks are written.

    `call` asks for a range. Raises StateError: others' keys there would be taken for locks.
    """
    key = find_stranger(keys, prefix)
    if key is not None:
        raise StateError(f"{location} there is something else already ('{shown(key)}'): {CHOOSE}")
    key = find_outer(prefix, call)
    if key is not None:
        raise StateError(f"{location} is within another one's prefix ('{shown(key)}' is there): {CHOOSE}")


def find_alien(prefix: bytes, call: Callable[[bytes], dict[str, Any]]) -> Optional[bytes]:
    """Return a key under a prefix that a lock space does not have; `call` asks for a range."""
    for begin, end in ((prefix, prefix + b"lock/"), (prefix + b"lock0", end_of(prefix))):  # locks may be many
        for found in entries(call(get_range(begin, end, _MOST_BESIDE_LOCKS))):
            name = found.key[len(prefix) :]
            if name not in _NAMES and not name.startswith(b"member/"):
                return found.key
    return None


def find_outer(prefix: bytes, call: Callable[[bytes], dict[str, Any]]) -> Optional[bytes]:
    """Return the key `format` of a lock space whose prefix this one begins with; `call` asks for a range.

    Where we may not read, nobody can tell.
    """
    for number, byte in enumerate(prefix[:-1]):
        outer = prefix[: number + 1] + b"format"
        if byte == ord("/"):
            try:
                answer = call(get_request(outer).encode())
            except EtcdRefused:
                continue
            if entry(answer) is not None:
                return outer
    return None


def _mark(answer: dict[str, Any], last_token: int) -> Mark:
    header = answer["header"]
    return Mark(str(header.get("cluster_id", "")), int(header.get("revision", 0)), last_token)
