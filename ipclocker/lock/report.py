r"""Writing held locks down for lockstat: as a table, as the details of one lock, and as the objects of JSON.

Text keeps the bytes of names and users, so it has to be written out with `encode_text`. For a terminal, and in
commands, control characters stand as \xNN: no lock's name moves the cursor. JSON has text only, so there a byte that is
not UTF-8, and the backslash, stand as \xNN.

A fact that the server did not say is `-` in a table and null in JSON.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, Optional

from ..net.text import decode_text, encode_text
from .snapshot import BROKEN, HELD, RECALLED, SILENT, HostState, Outcome, Ping, Snapshot
from .wire.info import HeldInfo, WaiterInfo

_COLUMNS = ("NAME", "HOLDER", "HOST", "PID", "SINCE", "HOLD", "TOKEN", "WAIT", "STATE")
_TO_THE_RIGHT = {"PID", "WAIT"}
_WIDEST = 32  # characters that a column makes room for; a longer cell moves the rest of its line
_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0))}
# Seconds, 300,000 years and 300: a server may say any number, but a larger one is not believed, and localtime() would
# raise for it.
_LONGEST_TIME = 1e13
_LONGEST_AGE = 1e10
_HALF_A_YEAR = 180 * 86400.0  # seconds; an older date is shown with its year


def text(word: bytes | None) -> str:
    """Decode a word of the protocol to text that `encode_text` turns back into the same bytes."""
    return "-" if word is None else decode_text(word)


def escape_controls(written: str) -> str:
    r"""Write the control characters of a text as \xNN, but for newlines."""
    return "\n".join(line.translate(_CONTROLS) for line in written.split("\n"))


def table(snapshot: Snapshot) -> str:
    """Write a line for each lock, in aligned columns under their titles."""
    rows = [_row(lock, snapshot) for lock in snapshot.locks]
    with_state = any(row[-1] for row in rows)
    columns = _COLUMNS if with_state else _COLUMNS[:-1]
    widths = [_width(title, [row[number] for row in rows]) for number, title in enumerate(columns)]
    return "".join(_line(columns, row, widths) for row in (columns, *rows))


def details(lock: HeldInfo, snapshot: Snapshot) -> str:
    """Write all that is known of one lock, a line each, and a line for each of its waiters in their order."""
    lines = [("lock", text(lock.name)), ("holder", text(lock.user))]
    if not snapshot.detailed:
        lines.append(("", "(the server is a classic one, which tells no more)"))
        return _facts(lines)
    command = "-" if lock.command is None else text(lock.command).translate(_CONTROLS)
    lines += [("host", _place(lock)), ("pid", _number(lock.pid)), ("command", command)]
    age = _age(lock)
    if age is not None:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.time - age))
        lines.append(("since", f"{since}, {duration(age)} ago"))
    lines += [("hold", _hold_in_words(lock)), ("token", _number(lock.token or None))]
    if lock.slots != 1:
        lines.append(("slots", _slots(lock)))
    lines += [("state", words) for words in _states(lock).values()]
    for other in lock.others:
        words = "" if other.command is None else f", {text(other.command).translate(_CONTROLS)}"
        where = f" on {_place(other)}, pid {_number(other.pid)}" if other.pid is not None else ""
        kept = ", kept" if other.kept else ""
        lines.append(("and", f"{text(other.user)}{where}, token {_number(other.token or None)}{kept}{words}"))
    lines.append(("waiters", str(len(lock.waiters))))
    return _facts(lines) + "".join(_waiter(number, waiter) for number, waiter in enumerate(lock.waiters, 1))


def document(snapshot: Snapshot) -> dict[str, Any]:
    """Make the JSON object of a snapshot; times are seconds since 1970, ages seconds."""
    return {
        "server": json_text(snapshot.server),
        "time": round(snapshot.time, 3),
        "locks": [_lock_document(lock, snapshot) for lock in snapshot.locks],
    }


def json_text(word: bytes | str | None) -> Optional[str]:
    """Turn a word into text for JSON; different bytes never become the same text."""
    if word is None:
        return None
    if isinstance(word, str):
        word = encode_text(word)
    return word.replace(b"\\", b"\\x5c").decode("utf-8", "backslashreplace")


def duration(seconds: float) -> str:
    """Write seconds for people, in the two largest units."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def outcome_line(outcome: Outcome) -> str:
    """Write the outcome of breaking a lock as a line."""
    name, holder = outcome.name, text(outcome.holder)
    if outcome.what == BROKEN:
        return f"lock {name} was taken from {holder}"
    if outcome.what == RECALLED:
        return f"lock {name} was taken back from {holder} after {duration(outcome.waited)}"
    if outcome.what == HELD:
        why = "its process is known to live" if outcome.lives else "its lease is not over"
        first = "end that process" if outcome.lives else "wait longer (--timeout)"
        then = f"{first}, or free the lock at once with --force, though what it protects may still run"
        return f"lock {name} is still held by {holder} after {duration(outcome.waited)}, since {why}: {then}"
    return f"lock {name} is free: there was nobody to take it from"


def outcomes_document(server: str, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Make the JSON object of the outcomes of breaking locks."""
    locks = [
        {"name": json_text(outcome.name), "outcome": outcome.what, "holder": json_text(outcome.holder or None)}
        for outcome in outcomes
    ]
    return {"server": json_text(server), "locks": locks}


def ping_line(pong: Ping) -> str:
    """Write that a server answers, and how fast, as a line."""
    line = f"{pong.server} answered in {pong.seconds:.3f} s: version {pong.version or '-'}"
    if pong.started is None:
        return line
    return f"{line}, running since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(pong.started))}"


def ping_document(pong: Ping) -> dict[str, Any]:
    """Make the JSON object of a server that answers; its age, in seconds, is by this host's clock."""
    return {
        "server": json_text(pong.server),
        "seconds": round(pong.seconds, 6),
        "version": json_text(pong.version),
        "started": pong.started,
        "age": None if pong.started is None else round(time.time() - pong.started, 3),
    }


def hosts_text(hosts: Sequence[HostState]) -> str:
    """Write a line for each host: what it is, and what it has answered, or why not; one alone has no need of the first.

    At least one has to serve.
    """
    if len(hosts) == 1 and hosts[0].ping is not None:
        return ping_line(hosts[0].ping) + "\n"
    return "".join(f"{host.state:<10} {_host_line(host)}\n" for host in hosts)


def _host_line(host: HostState) -> str:
    if host.ping is not None:
        return ping_line(host.ping)
    return f"{host.server} ({host.problem})" if host.state == SILENT else host.server


def hosts_document(hosts: Sequence[HostState], first: HostState) -> dict[str, Any]:
    """Make the JSON object of a ping of all hosts; `first` is the first that serves."""
    assert first.ping is not None
    return {**ping_document(first.ping), "hosts": [_host_document(host) for host in hosts]}


def _host_document(host: HostState) -> dict[str, Any]:
    pong = dict.fromkeys(("seconds", "version", "started", "age")) if host.ping is None else ping_document(host.ping)
    return {
        **pong,
        "server": json_text(host.server),
        "state": host.state,
        "space": json_text(host.space or None),
        "replicated": host.is_replicated if host.space else None,
        "problem": json_text(host.problem or None),
    }


# The table


def _row(lock: HeldInfo, snapshot: Snapshot) -> tuple[str, ...]:
    name, user = text(lock.name), text(lock.user)
    if not snapshot.detailed:
        return name, user, "-", "-", "-", "-", "-", "-", ""
    hold, lease = _seconds(lock.hold), _seconds(lock.lease)
    limit = f"lease {_written(lease)}" if lease else _written(hold) if hold else "-" if lock.kept else "for ever"
    host = text(lock.address if lock.host is None else lock.host)
    since = _clock_time(lock, snapshot.time)
    state = ", ".join([*_states(lock), *([_slots(lock)] if lock.slots != 1 else [])])
    return name, user, host, _number(lock.pid), since, limit, _number(lock.token or None), str(len(lock.waiters)), state


def _clock_time(lock: HeldInfo, now: float) -> str:
    """Write since when a lock is held: the time if that was today, else with month and day; the date if long ago."""
    age = _age(lock)
    if age is None:
        return "-"
    when = time.localtime(now - age)
    is_today = when[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M:%S" if is_today else "%m-%d %H:%M" if age < _HALF_A_YEAR else "%Y-%m-%d", when)


def _width(title: str, cells: Iterable[str]) -> int:
    return max(len(title), max((len(cell) for cell in cells if len(cell) <= _WIDEST), default=0))


def _line(columns: Sequence[str], row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if title in _TO_THE_RIGHT else cell.ljust(width)
        for title, cell, width in zip(columns, row, widths)
    ]
    return "  ".join(cells).rstrip() + "\n"


# The details


def _facts(lines: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{title:<8} {fact}".rstrip() + "\n" for title, fact in lines)


def _place(process: HeldInfo | WaiterInfo) -> str:
    """Write the host as it calls itself, with the address that the server saw."""
    if process.host is not None and process.address is not None:
        return f"{text(process.host)} ({text(process.address)})"
    return text(process.address if process.host is None else process.host)


def _hold_in_words(lock: HeldInfo) -> str:
    lease, hold, left = _seconds(lock.lease), _seconds(lock.hold), _seconds(lock.left)
    words = f"a lease of {_written(lease)} s" if lease else f"{_written(hold)} s" if hold else "for ever"
    if lock.kept:
        words = f"at least {_written(_seconds(lock.minhold) or 0.0)} s"
    return words if left is None else f"{words}, {left:.1f} s left"


def _states(lock: HeldInfo) -> dict[str, str]:
    """Collect what is unusual about a lock: in a word, and in words."""
    states = {}
    if lock.recalled:
        states["recalled"] = "recalled: its holder was told to end what it runs and to give it back"
    if lock.outlived:
        states["outlived"] = "outlived: the lease is over, but the holder's process is known to live, so it stays held"
    if lock.kept:
        states["kept"] = "kept: its holder is done; it stays taken until its min-hold is over"
    if not lock.confirmed:
        states["unconfirmed"] = "unconfirmed: granted after a wait, and the holder has not yet said that it knows"
    return states


def _slots(lock: HeldInfo) -> str:
    """Write how many hold a lock that several may hold, of how many: "2 of 4"."""
    limits = [held.slots for held in (lock, *lock.others) if held.slots]
    return f"{1 + len(lock.others)} of {min(limits)}" if limits else f"{1 + len(lock.others)} of any number"


def _mode(slots: int) -> str:
    return {0: "shared", 1: "exclusive"}.get(slots, "slots")


def _waiter(number: int, waiter: WaiterInfo) -> str:
    age = _age(waiter)
    words = [f"{number:>4}. {text(waiter.user)}"]
    words.append("waits" if age is None else f"waits for {duration(age)}")
    if waiter.host is not None or waiter.address is not None:
        words.append(f"on {_place(waiter)}")
    if waiter.pid is not None:
        words.append(f"pid {waiter.pid}")
    if waiter.command is not None:
        words.append(text(waiter.command).translate(_CONTROLS))
    return ", ".join(words) + "\n"


# JSON


def _lock_document(lock: HeldInfo, snapshot: Snapshot) -> dict[str, Any]:
    known = snapshot.detailed
    return {
        "name": json_text(lock.name),
        "holder": json_text(lock.user),
        "token": lock.token or None,
        "hold": _seconds(lock.hold),
        "lease": _seconds(lock.lease),
        "left": _seconds(lock.left),
        "recalled": lock.recalled if known else None,
        "outlived": lock.outlived if known else None,
        "confirmed": lock.confirmed if known else None,
        "mode": _mode(lock.slots) if known else None,
        "slots": (lock.slots or None) if known else None,
        "min_hold": _seconds(lock.minhold),
        "kept": lock.kept if known else None,
        **_process_document(lock, snapshot),
        "holders": [_holder_document(held, snapshot) for held in (lock, *lock.others)] if known else None,
        "waiters": [_waiter_document(waiter, snapshot) for waiter in lock.waiters] if known else None,
    }


def _holder_document(held: HeldInfo, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "holder": json_text(held.user),
        "token": held.token or None,
        "slots": held.slots or None,
        "kept": held.kept,
        **_process_document(held, snapshot),
    }


def _waiter_document(waiter: WaiterInfo, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "user": json_text(waiter.user),
        "mode": _mode(waiter.slots),
        "slots": waiter.slots or None,
        **_process_document(waiter, snapshot),
    }


def _process_document(process: HeldInfo | WaiterInfo, snapshot: Snapshot) -> dict[str, Any]:
    age = _age(process) if snapshot.detailed else None
    return {
        "since": None if age is None else round(snapshot.time - age, 3),
        "age": age,
        "host": json_text(process.host),
        "pid": process.pid,
        "address": json_text(process.address),
        "command": json_text(process.command),
    }


def _seconds(number: float | None) -> float | None:
    """Return the seconds that a server said if they can be a time, else None."""
    return number if number is not None and isfinite(number) and abs(number) < _LONGEST_TIME else None


def _age(process: HeldInfo | WaiterInfo) -> float | None:
    age = _seconds(process.age)
    return age if age is not None and 0 <= age < _LONGEST_AGE else None


def _written(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def _number(number: int | None) -> str:
    return "-" if number is None else str(number)
