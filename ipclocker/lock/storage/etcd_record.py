"""A grant as it stands in etcd: under `NAME/TOKEN` (the name URL-quoted) a JSON object of all that is not its default.

So an object of a newer version, with members that are not known here, can be read, and one without a member that came
later, too. Bytes are UTF-8; those that are none become surrogates and stay what they are (net/text.py).

This is done for each change, and for each lock at a fail-over: it has to be quick.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ...net.text import decode_text, encode_text
from ..model import Record

MAX_COMMAND = 4096  # bytes of a command that are kept; it is for people to read
OLDEST_FORMAT = 1  # of a prefix
_DEFAULTS: dict[str, Any] = {  # in the order of a Record's fields behind the token and the name
    "user": b"",
    "session": b"",
    "since": 0.0,
    "hold": 0.0,
    "lease": False,
    "outlived": False,
    "confirmed": True,
    "recalled": False,
    "heard": None,
    "command": b"",
    "host": b"",
    "pid": 0,
    "start": None,
    "boot": b"",
    "pidns": None,
    "address": "",
    "machine": b"",
    "timens": None,
    "slots": 1,
    "min_hold": 0.0,
    "keep_until": None,
    "kept": False,
}
_TEXTS = {name for name, default in _DEFAULTS.items() if isinstance(default, bytes)}
_FLAGS = {name for name, default in _DEFAULTS.items() if isinstance(default, bool)}
_TIMES = {"since", "hold", "heard", "min_hold", "keep_until"}
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys((*_TEXTS, "address"), (str,)),
    **dict.fromkeys(_FLAGS, (bool,)),
    **dict.fromkeys(_TIMES, (float, int)),
    **dict.fromkeys(("pid", "slots", "start", "pidns", "timens"), (int,)),
}


def record_key(name: bytes, token: int) -> bytes:
    """Return where a grant stands, below `lock/`."""
    return b"%b/%d" % (quote_from_bytes(name, safe="").encode(), token)


def record_value(record: Record) -> bytes:
    """Return what stands there."""
    found: dict[str, Any] = {"user": decode_text(record.user)}
    fields: tuple[Any, ...] = record
    for name, default, value in zip(_NAMES, _USUAL, fields[3:]):
        if value != default:
            if name in _TEXTS:
                value = decode_text(value if name != "command" else value[:MAX_COMMAND])
            elif name in _FLAGS:  # a record from SQLite has numbers
                value = bool(value)
            found[name] = value
    return _encode(found).encode()


def record_format(record: Record) -> int:
    """Return the oldest format of a prefix whose readers understand this grant: others would see a plain lock in it."""
    return OLDEST_FORMAT if record.slots == 1 and not record.min_hold else 2


def read_record(key: bytes, value: bytes) -> Record:
    """Return the grant that stands under a key below `lock/`. Raises ValueError, with what is wrong with it."""
    quoted, _, number = key.partition(b"/")
    name, token = unquote_to_bytes(quoted), int(number) if number.isdigit() else -1
    if record_key(name, token) != key or not name:
        raise ValueError("the key does not end in a name and a number")
    found = _decode(value.decode())
    if not isinstance(found, dict) or "user" not in found:
        raise ValueError("it is no JSON object with a user")
    fields = _DEFAULTS.copy()
    for member, kept in found.items():
        kinds = _KINDS.get(member)
        if kinds is None:
            continue  # of a newer version
        if type(kept) not in kinds:
            raise ValueError(f"its {member} is {kept!r:.50}")
        if member in _TEXTS:
            kept = encode_text(kept)
        elif member in _TIMES:
            kept = float(kept)
        fields[member] = kept
    return Record(token, name, *fields.values())


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


_NAMES, _USUAL = tuple(_DEFAULTS)[1:], tuple(_DEFAULTS.values())[1:]  # of what stands behind the user
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder(parse_constant=_no_number).decode
