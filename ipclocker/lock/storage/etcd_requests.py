"""The bodies of requests to etcd's JSON gateway, as text, and the splitting of a batch that is too large for one.

Keys and values are in base64, so that they need no escape; numbers of 64 bits are strings, and written out even if they
are 0: a compare without a number is one with 0, which is true of a key that is missing.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Optional

MOST_OPERATIONS = 100  # in one transaction; etcd takes 128
MOST_BYTES = 512 * 1024  # of their keys and values in base64; etcd takes 1.5 MB of them as they are


class Entry(NamedTuple):
    """A key as it stands in etcd."""

    key: bytes
    value: bytes
    create_revision: int


def put(key: bytes, value: bytes, lease: str = "0") -> str:
    """An operation of a transaction: write a key, which goes with the lease of that number (0: with none)."""
    return f'{{"request_put":{{"key":"{_text(key)}","value":"{_text(value)}","lease":"{lease}"}}}}'


def delete(key: bytes) -> str:
    """An operation of a transaction: delete a key."""
    return f'{{"request_delete_range":{{"key":"{_text(key)}"}}}}'


def get(key: bytes) -> str:
    """An operation of a transaction: read a key."""
    return f'{{"request_range":{get_request(key)}}}'


def get_request(key: bytes) -> str:
    """The body of a range request for one key; the answer is the cluster's (linearizable), not a member's alone."""
    return f'{{"key":"{_text(key)}"}}'


def get_range(start: bytes, end: bytes, limit: int) -> bytes:
    """The body of a range request for so many keys from `start` on, below `end`, without their values."""
    return f'{{"key":"{_text(start)}","range_end":"{_text(end)}","limit":"{limit}","keys_only":true}}'.encode()


def get_page(start: bytes, end: bytes, limit: int, keys_only: bool = False) -> str:
    """An operation of a transaction: read so many keys from `start` on, below `end`, in order."""
    only = ',"keys_only":true' if keys_only else ""
    return f'{{"request_range":{{"key":"{_text(start)}","range_end":"{_text(end)}","limit":"{limit}"{only}}}}}'


def created_at(key: bytes, revision: int) -> str:
    """A compare: the key was made at that revision (0: it is missing)."""
    return f'{{"key":"{_text(key)}","target":"CREATE","result":"EQUAL","create_revision":"{revision}"}}'


def has_value(key: bytes, value: bytes | None) -> str:
    """A compare: the key has this value (None: it is missing)."""
    if value is None:
        return created_at(key, 0)
    return f'{{"key":"{_text(key)}","target":"VALUE","result":"EQUAL","value":"{_text(value)}"}}'


def transaction(compare: Iterable[str], success: Iterable[str], failure: Iterable[str] = ()) -> bytes:
    """The body of a transaction: if all compares are true, the one list of operations, else the other."""
    return (
        f'{{"compare":[{",".join(compare)}],"success":[{",".join(success)}],"failure":[{",".join(failure)}]}}'
    ).encode()


def parts(operations: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split operations, in their order, into what one transaction takes beside the counter; one part at least."""
    start = size = 0
    for number, operation in enumerate(operations):
        if number > start and (number - start >= MOST_OPERATIONS or size + len(operation) > MOST_BYTES):
            yield operations[start:number]
            start, size = number, 0
        size += len(operation)
    yield operations[start:]


def entries(answer: dict[str, Any]) -> list[Entry]:
    """What a range has found; of a key that was asked for without its value that is empty."""
    return [
        Entry(a2b_base64(found["key"]), a2b_base64(found.get("value", "")), int(found["create_revision"]))
        for found in answer.get("kvs", ())
    ]


def entry(answer: dict[str, Any]) -> Optional[Entry]:
    """What a range of one key has found."""
    found = entries(answer)
    return found[0] if found else None


def ranges(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers to the reads of a transaction."""
    return [response["response_range"] for response in answer.get("responses", ()) if "response_range" in response]


def end_of(prefix: bytes) -> bytes:
    """The first key that does not begin with a prefix, nor comes before one that does."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _text(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()
