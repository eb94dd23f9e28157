"""The last token in an etcd that was restored from a backup, and has forgotten the ones that were given since.

A lockerd begins each term at the time in microseconds or above the counter, whichever is more. With a clock that is
behind, it would give tokens once more. So the counter is raised above all that were given, as far as is known.
"""

from __future__ import annotations

import time

from .base import new_space
from .etcd_client import EtcdClient
from .etcd_prefix import FORMAT, check_is_free, describe, read_counter
from .etcd_requests import created_at, end_of, entries, entry, get, get_page, has_value, put, ranges, transaction

# Tokens that may have been given since the last one was noted: more than in some seconds at full load.
_MARGIN = 1_000_000
_SOME_KEYS = 100


def raise_last_token(client: EtcdClient, prefix: str, noted: int, deadline: float) -> None:
    """See that the tokens go on above `noted`, and above what is there; not below a lockerd that serves and does so.

    A lockerd that serves and gives smaller ones steps down, and goes on above it. Raises EtcdRefused, EtcdUnavailable,
    StateError.
    """
    start, location = prefix.encode(), describe(client, prefix)
    names = [start + name for name in (b"leader", b"format", b"space", b"counter")]
    while True:
        answer = client.call("kv/txn", transaction([], map(get, names)), deadline)
        leader, version, space, counter = map(entry, ranges(answer))
        last = read_counter(counter, location)
        if leader is not None and last >= noted:
            return
        compares, writes = [has_value(names[3], None if counter is None else counter.value)], []
        if counter is None:  # nobody has ever served here: it is begun as a first leader would
            page = get_page(start, end_of(start), _SOME_KEYS, keys_only=True)
            (found,) = ranges(client.call("kv/txn", transaction([], [page]), deadline))
            if version is None:
                check_is_free(entries(found), start, location, lambda body: client.call("kv/range", body, deadline))
            for name, there, value in ((1, version, b"%d" % FORMAT), (2, space, new_space().encode())):
                if there is None:
                    compares.append(created_at(names[name], 0))
                    writes.append(put(names[name], value))
        term, number = (b"0", b"0") if counter is None else counter.value.split()[:2]
        last = max(time.time_ns() // 1000, last, noted) + _MARGIN
        writes.append(put(names[3], b"%b %b %d" % (term, number, last)))
        if client.call("kv/txn", transaction(compares, writes), deadline).get("succeeded"):
            return
