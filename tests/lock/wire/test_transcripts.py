"""Exchanges of lines as they go over the wire, in memory and with a real server.

Those of the first part were seen between the classic programs, and every byte has to be the same (PROTOCOL.md).
A step a line: `A: x; y` is what connection A sends, lines in one packet; `A= x; y` is all that A is then sent, where
nothing between two `;` is an empty line, and `_` a space before a line's end; `A closed` and `A x` are the ends that
the server and the client make; `~ 2` is time that passes on the clock of the memory server (a real one is waited for,
which is what `A=` does).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ...support.memory import MemoryPeer, MemoryServer, as_lines
from ...support.servers import Peer, ThreadServer

CLASSIC = {
    "a free lock is granted at once": """
        A: user hostA_11_ann; locks build; block 1; timeout 600; LOCK
        A= owner hostA_11_ann; locked 1; lockname build; ;
        A: UNLOCK
        A= owner_; locked 0; ;
    """,
    "a request a connection, that ends with EOF": """
        A: user hostA_11_ann; locks build; block 1; timeout 600; LOCK; ; EOF;
        A= owner hostA_11_ann; locked 1; lockname build; ;
        A closed
        B: user hostA_11_ann; locks build; UNLOCK; ; EOF;
        B= owner_; locked 0; ;
        B closed
    """,
    "who does not wait is told who holds it": """
        A: user hostA_11_ann; locks build; block 1; timeout 600; LOCK
        A= owner hostA_11_ann; locked 1; lockname build; ;
        B: user hostB_22_bob; locks build; block 0; timeout 600; LOCK; ; EOF;
        B= owner hostA_11_ann; locked 0; ;
        B closed
        A: UNLOCK
        A= owner_; locked 0; ;
    """,
    "who waits is told so, and then that it has it": """
        A: user hostA_11_ann; locks build; block 1; timeout 600; LOCK
        A= owner hostA_11_ann; locked 1; lockname build; ;
        B: user hostB_22_bob; locks build; block 1; timeout 600; LOCK
        B= print_waiting hostA_11_ann
        A: UNLOCK
        A= owner hostB_22_bob; locked 0; ;
        B= print_obtained; owner hostB_22_bob; locked 1; lockname build; ;
        B: UNLOCK
        B= owner_; locked 0; ;
    """,
    "the first free of several names": """
        A: user hostA_11_ann; locks lic1; block 1; timeout 600; LOCK
        A= owner hostA_11_ann; locked 1; lockname lic1; ;
        B: user hostB_22_bob; locks lic1 lic2 lic3; block 1; timeout 600; LOCK
        B= owner hostB_22_bob; locked 1; lockname lic2; ;
        B: UNLOCK
        B= owner_; locked 0; ;
        A: UNLOCK
        A= owner_; locked 0; ;
    """,
    "waiters are served in their order": """
        A: user u_a; locks q; block 1; timeout 600; LOCK
        A= owner u_a; locked 1; lockname q; ;
        B: user u_b; locks q; block 1; timeout 600; LOCK
        B= print_waiting u_a
        C: user u_c; locks q; block 1; timeout 600; LOCK
        C= print_waiting u_a
        A: UNLOCK
        A= owner u_b; locked 0; ;
        B= print_obtained; owner u_b; locked 1; lockname q; ;
        B: UNLOCK
        B= owner u_c; locked 0; ;
        C= print_obtained; owner u_c; locked 1; lockname q; ;
        C: UNLOCK
        C= owner_; locked 0; ;
    """,
    "status and list": """
        A: user u_a; locks s1; block 1; timeout 600; LOCK
        A= owner u_a; locked 1; lockname s1; ;
        B: user u_b; locks s2; block 1; timeout 600; LOCK
        B= owner u_b; locked 1; lockname s2; ;
        C: user u_c; locks s1; STATUS
        C= owner u_a; locked 0; ;
        D: user u_d; locks nobody; STATUS
        D= owner_; locked 0; ;
        A: STATUS
        A= owner u_a; locked 1; lockname s1; ;
        E: LOCK_LIST
        E= lock s1 u_a; lock s2 u_b; ;
        A: UNLOCK
        A= owner_; locked 0; ;
        B: UNLOCK
        B= owner_; locked 0; ;
        E: LOCK_LIST
        E= ;
    """,
    "a lock is broken": """
        A: user u_a; locks br; block 1; timeout 600; LOCK
        A= owner u_a; locked 1; lockname br; ;
        B: user u_b; locks br; block 1; timeout 600; LOCK
        B= print_waiting u_a
        C: user u_c; locks br; BREAK_LOCK
        C= print_broke u_a; owner u_b; locked 0; ;
        B= print_obtained; owner u_b; locked 1; lockname br; ;
        B: UNLOCK
        B= owner_; locked 0; ;
    """,
    "a waiter that hangs up is passed over": """
        A: user u_a; locks hu; block 1; timeout 600; LOCK
        A= owner u_a; locked 1; lockname hu; ;
        B: user u_b; locks hu; block 1; timeout 600; LOCK
        B= print_waiting u_a
        C: user u_c; locks hu; block 1; timeout 600; LOCK
        C= print_waiting u_a
        B x
        A: UNLOCK
        A= owner u_c; locked 0; ;
        C= print_obtained; owner u_c; locked 1; lockname hu; ;
        C: UNLOCK
        C= owner_; locked 0; ;
    """,
    "a hold time ends": """
        A: user u_a; locks ht; block 1; timeout 1; LOCK
        A= owner u_a; locked 1; lockname ht; ;
        B: user u_b; locks ht; block 1; timeout 600; LOCK
        B= print_waiting u_a
        ~ 2
        B= print_obtained; owner u_b; locked 1; lockname ht; ;
        B: UNLOCK
        B= owner_; locked 0; ;
    """,
    "lines and words that are not known are skipped": """
        A: flavour vanilla; user u_a; locks ig; NOSUCH thing; block 1; timeout 600 extra words; LOCK
        A= owner u_a; locked 1; lockname ig; ;
        A: UNLOCK
        A= owner_; locked 0; ;
    """,
    "the ping of a classic client": """
        A: user u_a; locks lock; block 1; timeout 600; ; ; EOF;
        A closed
    """,
    "a dead process is looked for and told of": """
        A: user hostA_4194300_ann; locks au; block 1; timeout 0; autounlock 1; pid 4194300; hostname 127.0.0.9; LOCK
        A= owner hostA_4194300_ann; locked 1; lockname au; ;
        B: user hostB_22_bob; locks au; block 1; timeout 0; autounlock 1; pid 22; hostname 127.0.0.10; LOCK
        B= autounlock_check au 127.0.0.9 4194300 2; print_waiting hostA_4194300_ann
        C: user hostB_22_bob; locks au; DEAD_PID 127.0.0.9 4194300; ; EOF;
        C closed
        B= print_obtained; owner hostB_22_bob; locked 1; lockname au; ;
        B: UNLOCK
        B= owner_; locked 0; ;
    """,
}

NEW = {
    "who was told no is not queued": """
        A: user a; locks x; LOCK
        A= owner a; locked 1; lockname x; ;
        B: user b; locks x; LOCK
        B= owner a; locked 0; ;
        A: UNLOCK
        A= owner_; locked 0; ;
        B: STATUS
        B= owner_; locked 0; ;
    """,
    "commands behind a LOCK that waits have to wait": """
        A: user a; locks x; LOCK
        A= owner a; locked 1; lockname x; ;
        B: user b; locks x; block 1; LOCK
        B= print_waiting a
        B: UNLOCK; locks y; LOCK; STATUS
        B=
        A: UNLOCK
        A= owner b; locked 0; ;
        B= print_obtained; owner b; locked 1; lockname x; ; ; owner_; locked 0; ; ;
           owner b; locked 1; lockname y; ; ; owner b; locked 1; lockname y; ;
        B: UNLOCK
        B= owner_; locked 0; ;
    """,
    "they wait in the same packet too": """
        A: user a; locks x; LOCK
        A= owner a; locked 1; lockname x; ;
        B: user b; locks x; block 1; LOCK; UNLOCK; EOF
        B= print_waiting a
        A: UNLOCK
        A= owner b; locked 0; ;
        B= print_obtained; owner b; locked 1; lockname x; ; ; owner_; locked 0; ;
        B closed
    """,
    "another connection of the user takes its LOCK off the queue": """
        A: user a; locks x; LOCK
        A= owner a; locked 1; lockname x; ;
        B: user b; locks x; block 1; LOCK; LOCK_LIST; EOF
        B= print_waiting a
        C: user b; locks x; UNLOCK
        C= owner a; locked 0; ;
        B= owner a; locked 0; ; ; lock x a; ;
        B closed
        A: UNLOCK
        A= owner_; locked 0; ;
    """,
    "a second waiting LOCK of a user takes the place of the first": """
        A: user a; locks x; LOCK
        A= owner a; locked 1; lockname x; ;
        B: user b; locks x; block 1; LOCK
        B= print_waiting a
        C: user c; locks x; block 1; LOCK
        C= print_waiting a
        D: user b; locks x; block 1; LOCK
        D= print_waiting a
        B= owner a; locked 0; ;
        A: UNLOCK
        A= owner b; locked 0; ;
        D= print_obtained; owner b; locked 1; lockname x; ;
        D: UNLOCK
        D= owner c; locked 0; ;
        C= print_obtained; owner c; locked 1; lockname x; ;
        C: UNLOCK
        C= owner_; locked 0; ;
    """,
    "a lock is renewed by who holds it": """
        A: user a; locks x; LOCK; LOCK
        A= owner a; locked 1; lockname x; ; ; owner a; locked 1; lockname x; ;
        B: user a; locks y x; block 1; LOCK; UNLOCK
        B= owner a; locked 1; lockname x; ; ; owner_; locked 0; ;
    """,
    "a grant narrows the names": """
        A: user a; locks x y; LOCK; LOCK; UNLOCK; STATUS
        A= owner a; locked 1; lockname x; ; ; owner a; locked 1; lockname x; ; ;
           owner_; locked 0; ; ; owner_; locked 0; ;
    """,
    "a request that lacks something is answered": """
        A: LOCK
        A= error no_user; ;
        A: user a; LOCK; UNLOCK; STATUS; BREAK_LOCK
        A= error no_locks; ; ; error no_locks; ; ; error no_locks; ; ; error no_locks; ;
        A: locks x; user; LOCK
        A= error no_user; ;
        A: user a; locks; LOCK
        A= error no_locks; ;
        A: locks x; LOCK; UNLOCK
        A= owner a; locked 1; lockname x; ; ; owner_; locked 0; ;
    """,
    "status needs no user but a name": """
        A: STATUS
        A= error no_locks; ;
        A: BREAK_LOCK
        A= error no_locks; ;
        A: locks x; STATUS
        A= owner_; locked 0; ;
    """,
    "a number that is none is remembered until it is set well": """
        A: user a; locks x; timeout soon; LOCK
        A= error bad_timeout; ;
        A: LOCK; STATUS; LOCK_LIST
        A= error bad_timeout; ; ; error bad_timeout; ; ; error bad_timeout; ;
        B: LOCK_LIST
        B= ;
        A: timeout 5; LOCK
        A= owner a; locked 1; lockname x; ;
        A: block; UNLOCK
        A= error bad_block; ;
        A: block 0; UNLOCK
        A= owner_; locked 0; ;
    """,
    "each variable that takes a number": """
        A: user a; locks x
        A: autounlock yes; LOCK; autounlock 0
        A= error bad_autounlock; ;
        A: pid -1; LOCK; pid 1
        A= error bad_pid; ;
        A: start 1.5; LOCK; start 1
        A= error bad_start; ;
        A: pidns x; LOCK; pidns 1
        A= error bad_pidns; ;
        A: token x; LOCK; token 0
        A= error bad_token; ;
        A: LOCK_LIST
        A= ;
        A: timeout -1; EOF
        A closed
    """,
    "nobody ends the server": """
        A: user a; locks x; LOCK
        A= owner a; locked 1; lockname x; ;
        A: RESTART
        A= error restart_refused; ;
        A: UNLOCK
        A= owner_; locked 0; ;
    """,
    "an UNLOCK by somebody else frees nothing": """
        A: user a; session s; locks x; LOCK
        A= owner a; locked 1; lockname x; ;
        B: user b; locks x; UNLOCK
        B= owner a; locked 0; ;
        C: user a; locks x; UNLOCK
        C= owner a; locked 0; ;
        C: session t; UNLOCK; LOCK
        C= owner a; locked 0; ; ; owner a; locked 0; ;
        D: user a; session s; locks x; LOCK; UNLOCK
        D= owner a; locked 1; lockname x; ; ; owner_; locked 0; ;
    """,
    "a dead process is believed of no other host and no other pid": """
        A: user a; locks x; autounlock 1; pid 7; hostname h; LOCK
        A= owner a; locked 1; lockname x; ;
        B: DEAD_PID h 8; DEAD_PID g 7; DEAD_PID h; DEAD_PID; DEAD_PID h x; LOCK_LIST
        B= lock x a; ;
        B: DEAD_PID h 7; LOCK_LIST
        B= ;
    """,
    "who did not set autounlock is not told whom to look for, and its lock stays": """
        A: user a; locks x; autounlock 1; pid 7; hostname h; LOCK
        A= owner a; locked 1; lockname x; ;
        B: user b; locks x; LOCK
        B= owner a; locked 0; ;
        A: autounlock 0; LOCK
        A= owner a; locked 1; lockname x; ;
        B: autounlock 1; pid 8; hostname h; LOCK; DEAD_PID h 7; STATUS
        B= owner a; locked 0; ; ; owner a; locked 0; ;
        A: UNLOCK
        A= owner_; locked 0; ;
    """,
    "several names are broken together": """
        A: user a; locks x; LOCK; locks y; LOCK
        A= owner a; locked 1; lockname x; ; ; owner a; locked 1; lockname y; ;
        B: locks x z y; BREAK_LOCK
        B= print_broke a; print_broke a; owner_; locked 0; ;
    """,
}


def steps(case: str) -> Iterator[tuple[str, str, bytes]]:
    """Each step as the connection's name, what kind it is, and the bytes."""
    for line in re.sub(r"\n\s+(?=[a-z])", " ", case).split("\n"):
        words = line.strip()
        if words.startswith("~"):
            yield "", "~", words[1:].encode()
        elif words[1:] in (" x", " closed"):
            yield words[0], words[2:], b""
        elif words:
            text = words[2:].strip().replace("_;", " ;")
            yield words[0], words[1], as_lines(text).replace(b"owner\n", b"owner \n") if text else b""


def replay_in_memory(case: str, piece: int) -> None:
    server = MemoryServer()
    peers: dict[str, MemoryPeer] = {}
    for name, kind, data in steps(case):
        if kind == "~":
            server.pass_time(float(data))
            continue
        peer = peers.setdefault(name, server.connect())
        if kind == ":":
            for start in range(0, len(data), piece):
                peer.send(data[start : start + piece])
        elif kind == "=":
            assert peer.take() == data
        elif kind == "x":
            peer.hang_up()
        else:
            assert peer.closed and peer.take() == b""
    assert all(peer.heard == b"" for peer in peers.values())


def replay_for_real(case: str, server: ThreadServer) -> None:
    peers: dict[str, Peer] = {}
    for name, kind, data in steps(case):
        if kind == "~":
            continue
        if name not in peers:
            peers[name] = server.connect()
        peer = peers[name]
        if kind == ":":
            peer.send(data)
        elif kind == "=":
            server.turn()
            assert peer.hear_bytes(len(data)) == data
        elif kind == "x":
            peer.close()
            del peers[name]
        else:
            assert peer.hear_until_closed() == b""
            peer.close()
            del peers[name]
    server.turn()
    assert all(peer.hears_nothing() for peer in peers.values())


CASES = {**CLASSIC, **NEW}


@pytest.mark.parametrize("piece", [100_000, 1, 3])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_in_memory(case: str, piece: int) -> None:
    replay_in_memory(case, piece)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_with_a_real_server(case: str) -> None:
    with ThreadServer() as server:
        replay_for_real(case, server)


def test_one_after_the_other_on_one_server() -> None:
    """The classic cases leave nothing behind that the next one could stumble over."""
    with ThreadServer() as server:
        for case in CLASSIC.values():
            replay_for_real(case, server)
        assert server.holders() == {}
