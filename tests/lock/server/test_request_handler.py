"""The lock service in memory: tokens and confirmations, bounds, and clients that concern each other."""

from __future__ import annotations

import pytest

from ipclocker.lock.model import HolderProcess
from ipclocker.lock.server.request_pipeline import MAX_ANSWERS, MAX_BACKLOG
from ipclocker.lock.wire.requests import MAX_NAMES
from ipclocker.version import VERSION

from ...support.memory import MemoryPeer, MemoryServer

NEW = "token 1; block 1"


def held_by(server: MemoryServer, user: str = "ann", name: str = "x", more: str = "") -> MemoryPeer:
    """A client that has the lock."""
    peer = server.connect()
    assert "locked 1" in peer.ask(f"user {user}; locks {name}; {more}; LOCK")
    return peer


def waiting(server: MemoryServer, user: str, name: str = "x", more: str = "") -> MemoryPeer:
    """A client that waits for it."""
    peer = server.connect()
    assert peer.ask(f"user {user}; session {user}; locks {name}; block 1; {more}; LOCK")[-1].startswith("print_waiting")
    return peer


def token_of(peer: MemoryPeer) -> int:
    """The token of the grant that was heard last."""
    return int([line.split()[1] for line in peer.take().decode().split("\n") if line.startswith("token")][-1])


HELD_BY_7 = "autounlock 1; hostname h; pid 7"
PROCESS_7 = HolderProcess(b"h", 7, None, b"", None, "127.0.0.1")


def suspects_of(server: MemoryServer) -> list[HolderProcess]:
    """The processes that the server is told to look at, as they come."""
    suspects: list[HolderProcess] = []
    server.service.on_suspect = suspects.append
    return suspects


def test_version() -> None:
    server = MemoryServer()
    server.service.started = 1_700_000_000.9
    peer = server.connect()
    peer.say("VERSION")
    assert peer.take() == b"version %b 1700000000\n\n" % VERSION.encode()


def test_the_token_comes_only_to_who_asked_for_it() -> None:
    server = MemoryServer()
    old, new = server.connect(), server.connect()
    assert not any(line.startswith("token") for line in old.ask("user a; locks x; LOCK"))
    assert new.ask("user b; locks y; token 1; LOCK")[3].startswith("token ")


def test_tokens_grow_with_each_grant_and_stay_with_each_renewal() -> None:
    peer = MemoryServer().connect()
    peer.say("user a; locks x; token 1; timeout 9; LOCK")
    first = token_of(peer)
    peer.say("LOCK")
    assert token_of(peer) == first
    assert peer.ask(f"RENEW x {first}")[0] == f"renewed x {first}"
    peer.say("UNLOCK; LOCK")
    assert token_of(peer) > first


def test_renew_starts_the_hold_time_anew_only_for_that_very_grant() -> None:
    server = MemoryServer()
    peer = held_by(server, more="token 1; timeout 10")
    peer.say("LOCK")
    token = token_of(peer)
    for _ in range(5):
        server.pass_time(8)
        assert peer.ask(f"RENEW x {token}") == [f"renewed x {token}", "", ""]
    assert peer.ask(f"RENEW x {token - 1}") == ["error lost", "", ""]
    server.pass_time(10)
    assert server.held() == {}
    assert peer.ask(f"RENEW x {token}")[0] == "error lost"
    assert server.held() == {}


def test_check_says_whether_a_grant_still_stands() -> None:
    server = MemoryServer()
    peer = held_by(server, more="token 1")
    peer.say("LOCK")
    token = token_of(peer)
    other = server.connect()
    assert peer.ask(f"CHECK x {token}") == ["current 1", "", ""]
    assert other.ask(f"CHECK x {token + 1}; CHECK y {token}") == ["current 0", "", "", "current 0", "", ""]
    peer.say("UNLOCK; LOCK")
    assert other.ask(f"CHECK x {token}")[0] == "current 0"


@pytest.mark.parametrize("words", ["RENEW", "RENEW x", "RENEW x y", "CHECK x -1", "CHECK"])
def test_a_token_that_is_none_is_an_error(words: str) -> None:
    assert MemoryServer().connect().ask(words) == ["error bad_token", "", ""]


@pytest.mark.parametrize("words", ["GOT", "GOT x y", "DEAD_PID", "DEAD_PID h x", "timeout x; GOT x 1; timeout 1"])
def test_what_has_no_answer_has_none_when_it_means_nothing_either(words: str) -> None:
    assert MemoryServer().connect().ask(f"{words}; LOCK_LIST") == ["", ""]


def test_a_number_that_is_no_process_is_refused() -> None:
    peer = MemoryServer().connect()
    assert peer.ask("user u; locks x; autounlock 1; hostname h; pid 2147483648; LOCK") == ["error bad_pid", "", ""]


def test_a_waited_grant_that_is_not_confirmed_goes_to_the_next_after_ten_seconds() -> None:
    server = MemoryServer()
    holder = held_by(server)
    silent, next_one = waiting(server, "bob", more=NEW), waiting(server, "eve", more=NEW)
    holder.say("UNLOCK")
    assert b"print_obtained" in silent.take()
    server.pass_time(9.9)
    assert server.held() == {b"x": b"bob"}
    server.pass_time(0.2)
    next_one.say(f"GOT x {token_of(next_one)}")
    assert next_one.heard == b""
    server.pass_time(100)
    assert server.held() == {b"x": b"eve"}


def test_waiters_that_do_not_confirm_leave_the_lock_unused_for_15_seconds_and_who_lives_asks_again() -> None:
    server = MemoryServer()
    holder = held_by(server)
    stopped = [waiting(server, f"stopped{number}", more=NEW) for number in range(30)]
    lives = waiting(server, "eve", more=NEW)
    holder.say("UNLOCK")
    seconds = 0.0
    while b"token" not in lives.heard and seconds < 15:
        server.pass_time(0.5)
        seconds += 0.5
    token = token_of(lives)
    assert lives.ask(f"GOT x {token}; CHECK x {token}") == ["current 0", "", ""]
    assert lives.ask("LOCK")[:2] == ["owner eve", "locked 1"] and server.held() == {b"x": b"eve"}
    assert all(b"print_obtained" in peer.heard for peer in stopped)


def test_a_stopped_waiter_that_goes_on_has_its_place_again() -> None:
    server = MemoryServer()
    holder = held_by(server)
    first, second, third = (waiting(server, user, more=NEW) for user in ("bob", "eve", "tim"))
    holder.say("UNLOCK")
    server.pass_time(10)
    second.say(f"GOT x {token_of(second)}")
    token = token_of(first)
    assert first.ask(f"GOT x {token}; CHECK x {token}")[0] == "current 0"
    first.say("LOCK")
    assert [line.split()[3] for line in server.connect().ask("LOCK_INFO x")[1:3]] == ["bob", "tim"]
    second.say("UNLOCK")
    assert b"print_obtained" in first.heard and third.heard == b""


def test_a_classic_waiter_behind_stopped_ones_is_granted_the_lock_and_not_woken() -> None:
    server = MemoryServer()
    holder = held_by(server)
    for number in range(10):
        waiting(server, f"stopped{number}", more=NEW)
    classic = waiting(server, "bob")
    holder.say("UNLOCK")
    server.pass_time(15)
    assert b"locked 1" in classic.heard and server.held() == {b"x": b"bob"}


def test_a_classic_waiter_confirms_nothing_and_keeps_its_lock() -> None:
    server = MemoryServer()
    holder = held_by(server)
    classic = waiting(server, "bob")
    holder.say("UNLOCK")
    server.pass_time(1000)
    assert b"locked 1" in classic.heard and server.held() == {b"x": b"bob"}


def test_a_waiter_that_comes_back_gets_the_grant_that_it_missed() -> None:
    server = MemoryServer()
    holder = held_by(server)
    lost = waiting(server, "bob", more=NEW)
    holder.say("UNLOCK")
    token = token_of(lost)
    lost.hang_up()
    again = server.connect()
    again.say(f"user bob; session bob; locks x; {NEW}; LOCK")
    assert token_of(again) == token
    server.pass_time(1000)
    assert server.held() == {b"x": b"bob"}


def test_a_grant_that_could_not_be_delivered_goes_to_the_next() -> None:
    server = MemoryServer()
    holder = held_by(server)
    dead, next_one = waiting(server, "bob"), waiting(server, "eve")
    dead.reads = False  # the output stays here, so it can't have arrived there
    holder.say("UNLOCK")
    assert server.held() == {b"x": b"bob"}
    dead.hang_up()
    assert server.held() == {b"x": b"eve"} and b"locked 1" in next_one.heard


def test_a_grant_that_its_connection_could_not_send_goes_to_the_next_though_the_client_had_ended() -> None:
    server = MemoryServer()
    holder = held_by(server)
    suspects = suspects_of(server)
    dead, next_one = waiting(server, "bob", more=HELD_BY_7), waiting(server, "eve")
    dead.say("EOF")
    dead.reads = False
    dead.closed = True  # not yet: what the socket has not taken is still to be sent
    holder.say("UNLOCK")
    dead.handler.output.clear()
    assert server.held() == {b"x": b"bob"}
    dead.hang_up()
    assert server.held() == {b"x": b"eve"} and b"locked 1" in next_one.heard
    assert suspects == [PROCESS_7]


def test_what_a_client_knows_to_hold_it_keeps_when_it_hangs_up() -> None:
    server = MemoryServer()
    holder = held_by(server)
    next_one = waiting(server, "bob")
    holder.say("UNLOCK")
    next_one.hang_up()
    assert server.held() == {b"x": b"bob"}


def test_a_lost_connection_makes_the_server_look_at_the_process_of_its_last_lock_at_once() -> None:
    server = MemoryServer()
    suspects = suspects_of(server)
    peer = held_by(server, more="autounlock 1; hostname h; pid 6")
    peer.say(f"{HELD_BY_7}; locks y; LOCK")
    assert suspects == []
    server.now += 5
    peer.hang_up()
    assert suspects == [PROCESS_7]
    assert server.service.now == server.now  # it is looked at now, not when the client was last heard
    assert set(server.held()) == {b"x", b"y"}


def test_a_waiter_whose_connection_is_lost_is_looked_at_too() -> None:
    server = MemoryServer()
    held_by(server)
    suspects = suspects_of(server)
    waiting(server, "bob", more=HELD_BY_7).hang_up()
    assert suspects == [PROCESS_7]


def test_a_client_that_ends_in_good_order_makes_nobody_look() -> None:
    server = MemoryServer()
    suspects = suspects_of(server)
    peer = held_by(server, more=HELD_BY_7)
    peer.say("EOF")
    assert peer.closed
    peer.hang_up()
    assert suspects == [] and server.held() == {b"x": b"ann"}


@pytest.mark.parametrize("asks", ["LOCK", "STATUS"])
def test_a_client_that_is_gone_before_all_was_sent_to_it_has_not_ended_in_good_order(asks: str) -> None:
    server = MemoryServer()
    suspects = suspects_of(server)
    peer = held_by(server, more=HELD_BY_7)
    peer.take()
    peer.reads = False
    peer.say(f"{asks}; EOF")
    assert peer.closed and peer.heard == b""
    assert suspects == [PROCESS_7] and server.held() == {b"x": b"ann"}


def test_a_lost_connection_whose_client_named_no_process_makes_nobody_look() -> None:
    server = MemoryServer()
    suspects = suspects_of(server)
    held_by(server, more="hostname h; pid 7").hang_up()
    assert suspects == []


def test_a_client_that_is_refused_is_looked_at_as_one_that_is_lost() -> None:
    server = MemoryServer()
    suspects = suspects_of(server)
    peer = held_by(server, more=HELD_BY_7)
    peer.send(b"y" * 70_000)
    assert peer.closed and suspects == [PROCESS_7]


def test_a_client_that_hangs_up_counts_as_gone_whatever_it_had_still_asked_for() -> None:
    server = MemoryServer()
    held_by(server)
    peer = waiting(server, "bob")
    peer.say("UNLOCK; locks y; LOCK")
    peer.hang_up()
    server.service.table.break_grants(server.service.table.holders(b"x"), server.now)
    assert server.held() == {}


def test_hold_times_end_and_the_next_waiter_is_told() -> None:
    server = MemoryServer()
    held_by(server, more="timeout 2.5")
    next_one = waiting(server, "bob")
    server.pass_time(2.4)
    assert next_one.heard == b""
    server.pass_time(0.2)
    assert b"print_obtained" in next_one.heard


# What comes late, from a connection that was given up


ONCE = "user ann; session s once; locks x; token 1"


@pytest.mark.parametrize("released", ["it holds it", "it waits", "nothing was asked for yet"])
def test_a_lock_that_comes_behind_the_end_of_its_session_makes_no_ghost(released: str) -> None:
    server = MemoryServer()
    late, new = server.connect(), server.connect()
    if released == "it waits":
        held_by(server, "bob")
        server.connect().say(f"{ONCE}; block 1; LOCK")
    elif released == "it holds it":
        new.say(f"{ONCE}; LOCK")
        new.take()
    new.say(f"{ONCE}; UNLOCK")
    new.take()
    server.pass_time(599)
    assert late.ask(f"{ONCE}; block 1; LOCK") == ["error session_over", "", ""]
    assert new.ask("session other once; LOCK")[1:2] == (["locked 0"] if released == "it waits" else ["locked 1"])
    server.service.apply(server.service.table.break_grants(server.service.table.holders(b"x"), server.now))
    assert server.held() == {}
    server.pass_time(1)
    assert late.ask("LOCK")[1] == "locked 1"


@pytest.mark.parametrize("session", ["", "session s; "])
def test_an_older_client_may_lock_again_in_the_same_session(session: str) -> None:
    server = MemoryServer()
    for _ in range(3):
        peer = server.connect()
        assert peer.ask(f"user ann; {session}locks x; LOCK")[1] == "locked 1"
        assert peer.ask("UNLOCK; LOCK")[5] == "locked 1"
        assert server.connect().ask(f"user ann; {session}locks x; UNLOCK") == ["owner ", "locked 0", "", ""]


def test_an_unlock_that_names_its_grant_releases_no_later_one_of_the_same_user() -> None:
    server = MemoryServer()
    peer = held_by(server, more="token 1")
    peer.say("LOCK")
    first = token_of(peer)
    peer.say(f"UNLOCK x {first}; LOCK")
    second = token_of(peer)
    late = server.connect()
    assert late.ask(f"user ann; locks x; UNLOCK x {first}")[:3] == ["owner ann", "locked 1", "lockname x"]
    assert late.ask(f"user bob; UNLOCK x {second}")[:2] == ["owner ann", "locked 0"]
    assert server.held() == {b"x": b"ann"}
    assert late.ask(f"user ann; UNLOCK x {second}")[:2] == ["owner ", "locked 0"] and server.held() == {}


def test_an_unlock_that_names_its_grant_leaves_no_queue() -> None:
    server = MemoryServer()
    peer = held_by(server, more="token 1")
    peer.say("LOCK")
    token = token_of(peer)
    peer.say(f"UNLOCK x {token}")
    holder = held_by(server, "bob")
    again = server.connect()
    again.say("user ann; locks x; block 1; LOCK")
    server.connect().say(f"user ann; locks x; UNLOCK x {token}")
    holder.say("UNLOCK")
    assert server.held() == {b"x": b"ann"}


@pytest.mark.parametrize("words", ["x y", "x -1"])
def test_an_unlock_of_a_grant_that_is_none_is_an_error(words: str) -> None:
    server = MemoryServer()
    assert held_by(server).ask(f"UNLOCK {words}") == ["error bad_token", "", ""] and server.held()


def test_who_names_its_grant_is_not_told_that_it_is_lost() -> None:
    server = MemoryServer()
    peer = subscriber(server)
    server.connect().say("user ann; locks x; UNLOCK x 1")
    assert peer.take() == b"" and set(server.service.subscribers) == {2}


# Bounds


def test_as_many_names_as_there_may_be_and_one_more() -> None:
    peer = MemoryServer().connect()
    names = [f"n{number}" for number in range(MAX_NAMES + 1)]
    assert peer.ask(f"user a; locks {' '.join(names[:-1])}; LOCK")[1] == "locked 1"
    assert peer.ask(f"locks {' '.join(names)}; LOCK; STATUS")[0] == "error bad_locks"
    assert peer.ask("locks fine; LOCK")[1] == "locked 1"


def test_a_name_has_1024_bytes_at_most() -> None:
    server = MemoryServer()
    peer = server.connect()
    assert peer.ask(f"user a; locks {'n' * 1024}; LOCK")[1] == "locked 1"
    assert peer.ask(f"locks short {'n' * 1025}; LOCK") == ["error bad_locks", "", ""]
    assert peer.ask("STATUS")[1] == "locked 0" and len(server.held()) == 1


@pytest.mark.parametrize("variable", ["user", "hostname", "session", "boot", "machine"])
def test_a_word_about_the_holder_has_1024_bytes_at_most(variable: str) -> None:
    peer = MemoryServer().connect()
    asks = "user a; locks x; autounlock 1; pid 7"
    assert peer.ask(f"{asks}; {variable} {'w' * 1025}; LOCK") == [f"error bad_{variable}", "", ""]
    assert peer.ask(f"{variable} {'w' * 1024}; LOCK")[1] == "locked 1"


@pytest.mark.parametrize("in_one", [True, False])
def test_requests_behind_one_that_waits_are_kept_up_to_a_bound(in_one: bool) -> None:
    server = MemoryServer()
    held_by(server)
    peer = waiting(server, "bob")
    fits = b"STATUS\n" * (MAX_BACKLOG // 7)
    fits += b"\n" * (MAX_BACKLOG - len(fits))
    if in_one:
        peer.send(fits)
    else:
        for start in range(0, len(fits), 999):
            peer.send(fits[start : start + 999])
    assert not peer.closed and peer.heard == b""
    peer.send(b"\n")
    assert peer.closed and peer.take() == b"error too_much_input\n\n\n"
    server.service.table.break_grants(server.service.table.holders(b"x"), server.now)
    assert server.held() == {}


def test_a_line_without_end_is_refused_though_another_request_waits() -> None:
    server = MemoryServer()
    held_by(server)
    peer = waiting(server, "bob")
    for _ in range(17):
        peer.send(b"y" * 4096)
    assert peer.closed and peer.take() == b"error line_too_long\n\n\n"


def test_a_client_that_reads_nothing_has_few_answers_made_for_it() -> None:
    server = MemoryServer()
    peer = server.connect()
    peer.reads = False
    peer.say("locks x")
    peer.send(b"STATUS\n" * 5000)
    assert len(peer.handler.output) <= MAX_ANSWERS
    peer.reads = True
    peer.flush()
    assert peer.take() == b"owner \nlocked 0\n\n\n" * 5000


def test_a_long_list_is_made_in_pieces() -> None:
    server = MemoryServer()
    holder = server.connect()
    holder.send(b"user a\n" + b"".join(b"locks n%d\nLOCK\n" % number for number in range(5000)))
    peer = server.connect()
    peer.reads = False
    peer.say("LOCK_LIST; LOCK_LIST; VERSION")
    assert sum(map(len, peer.handler.output)) < 50_000
    holder.say("locks n1; UNLOCK; locks n4999; UNLOCK")  # what is listed is what is held when its turn comes
    peer.reads = True
    peer.flush()
    first, second, version = peer.take().split(b"\n\n\n")
    assert first.split(b"\n") == [b"lock n%d a" % number for number in range(4999)]
    assert second.split(b"\n") == [b"lock n%d a" % number for number in range(4999) if number != 1]
    assert version.startswith(b"version ")


def test_the_hold_time_of_a_request_that_stood_behind_unread_answers_counts_from_when_it_is_run() -> None:
    server = MemoryServer()
    peer = server.connect()
    peer.reads = False
    peer.say("user a; locks x; timeout 10" + "; STATUS" * MAX_ANSWERS + "; LOCK")
    assert server.held() == {}
    server.pass_time(100)
    peer.reads = True
    peer.flush()
    server.pass_time(9)
    assert server.held() == {b"x": b"a"}
    server.pass_time(1)
    assert server.held() == {}


def test_what_arrives_behind_the_end_is_not_run() -> None:
    server = MemoryServer()
    peer = server.connect()
    peer.say("user a; locks x; EOF")
    peer.handler.receive(b"LOCK\n", server.now)
    assert server.held() == {} and peer.handler.output == []


# What the client has not asked for


def subscriber(server: MemoryServer) -> MemoryPeer:
    """A client that holds x and y under leases, and is told when it loses them."""
    peer = server.connect()
    peer.say("user ann; token 1; tell 1; lease 1; timeout 1000; locks x; LOCK; locks y; LOCK")
    peer.take()
    return peer


def test_what_is_lost_or_recalled_is_told_at_once_and_once() -> None:
    server = MemoryServer()
    peer, other = subscriber(server), server.connect()
    other.say("locks x; RECALL")
    assert peer.take() == b"recall x 1\n"
    other.say("locks x y; BREAK_LOCK")
    assert peer.take() == b"lost x 1\nlost y 2\n"
    other.say("user ann; UNLOCK; BREAK_LOCK")
    assert peer.take() == b""


def test_what_is_lost_while_a_list_is_written_is_told_behind_the_list() -> None:
    server = MemoryServer()
    peer, other = subscriber(server), server.connect()
    other.send(b"user a\n" + b"".join(b"locks n%d\nLOCK\n" % number for number in range(2500)))
    peer.reads = False
    peer.say("LOCK_LIST; VERSION")
    other.say("locks x y; BREAK_LOCK")
    peer.reads = True
    peer.flush()
    listed, behind = peer.take().split(b"\n\n\n")
    assert len(listed.split(b"\n")) == 2502
    assert behind.startswith(b"lost x 1\nlost y 2\nversion ")
    peer.say("LOCK_LIST")
    assert b"lost" not in peer.take()


def test_who_has_ended_is_told_nothing_more() -> None:
    server = MemoryServer()
    peer = subscriber(server)
    assert server.service.subscribers
    peer.say("EOF")
    assert peer.closed and not server.service.subscribers
    lost = subscriber(server)
    lost.hang_up()
    assert not server.service.subscribers


def test_who_gives_its_lock_back_is_not_told_that_it_is_lost() -> None:
    server = MemoryServer()
    peer = subscriber(server)
    other = server.connect()
    other.say("user ann; locks x; UNLOCK")
    assert peer.take() == b"" and set(server.service.subscribers) == {2}
    other.say("locks y; BREAK_LOCK")
    assert peer.take() == b"lost y 2\n"


# One command each


def test_a_lock_that_is_recalled_can_not_be_asked_for_again() -> None:
    server = MemoryServer()
    peer = subscriber(server)
    server.connect().say("locks x; RECALL")
    peer.take()
    assert peer.ask("locks x; LOCK; locks y; LOCK")[:5] == ["error recalled", "", "", "owner ann", "locked 1"]
    assert peer.ask("RENEW x 1")[0] == "error recalled"


@pytest.mark.parametrize("session", ["", "s"])
def test_a_lock_of_a_session_that_has_hung_up_meanwhile_is_not_granted(session: str) -> None:
    server = MemoryServer()
    peer = server.connect()
    peer.gone = True
    peer.say(f"user a; session {session}; locks x; LOCK; locks y; LOCK")
    assert set(server.held()) == (set() if session else {b"x", b"y"})


def test_each_command_that_changes_a_grant_has_it_written() -> None:
    server = MemoryServer()
    written: list[set[int]] = []
    server.service.record = lambda images: written.append(set(images))
    peer = server.connect()
    peer.say(f"user a; {HELD_BY_7}; locks x; LOCK; LOCK; UNLOCK; LOCK; BREAK_LOCK; LOCK; DEAD_PID h 7; LOCK; RECALL")
    assert written == [{1}, {1}, {2}, {2}, {3}, {3}, {4}, {4}]


def test_of_a_process_that_is_said_to_be_dead_the_locks_of_others_are_only_looked_at() -> None:
    server = MemoryServer()
    suspects = suspects_of(server)
    held_by(server, more=HELD_BY_7)
    peer = server.connect("127.0.0.2")
    assert peer.ask("DEAD_PID h 7; DEAD_PID h 8; user b; locks y; LOCK")[1] == "locked 1"
    assert suspects == [PROCESS_7] and server.held() == {b"x": b"ann", b"y": b"b"}


def test_lock_info_tells_of_all_or_of_those_that_are_named_and_of_their_waiters() -> None:
    server = MemoryServer()
    peer = server.connect()
    peer.say("user ann; locks x; LOCK; locks y; LOCK; locks z; LOCK")
    waiting(server, "bob", "y")
    assert " 127.0.0.1" in server.connect().ask("LOCK_INFO y")[1]
    asker = server.connect()

    def told(asks: str) -> list[list[str]]:
        return [line.split()[:2] for line in asker.ask(asks) if line]

    assert told("LOCK_INFO") == [["held", "x"], ["held", "y"], ["waiter", "y"], ["held", "z"]]
    assert told("LOCK_INFO z none x") == [["held", "z"], ["held", "x"]]
    assert told("LOCK_INFO y") == [["held", "y"], ["waiter", "y"]]


def test_lock_info_tells_all_of_a_process_only_to_who_asks_for_the_lock_by_its_name() -> None:
    peer = MemoryServer().connect()
    peer.say(f"user a; {HELD_BY_7}; start 5; boot b; pidns 9; locks x; LOCK")
    assert " host h pid 7 address 127.0.0.1 start 5 boot b pidns 9" in peer.ask("LOCK_INFO x")[-3]
    assert " start " not in peer.ask("LOCK_INFO")[-3]


@pytest.mark.parametrize("command", ["LOCK", "UNLOCK", "STATUS", "BREAK_LOCK", "RECALL"])
def test_a_command_about_no_locks_is_an_error_and_the_next_is_run(command: str) -> None:
    peer = MemoryServer().connect()
    assert peer.ask(f"user a; {command}; {command}") == ["error no_locks", "", ""] * 2
    if command.endswith("LOCK") and "_" not in command:
        assert peer.ask(f"user; locks x; {command}; {command}") == ["error no_user", "", ""] * 2


def test_a_session_that_has_hung_up_has_nothing_done_that_stood_behind_its_lock() -> None:
    server = MemoryServer()
    held_by(server)
    peer = server.connect()
    peer.gone = True
    peer.say("user a; session s; locks x; LOCK; BREAK_LOCK")
    assert server.held() == {b"x": b"ann"} and peer.closed


def test_a_fault_in_a_command_is_not_taken_for_a_bad_value() -> None:
    server = MemoryServer()

    def fail(images: object) -> None:
        raise ValueError("planted")

    server.service.record = fail
    with pytest.raises(ValueError, match="planted"):
        server.connect().say("user a; locks x; LOCK")


def test_of_several_bad_values_one_is_named_and_always_the_same() -> None:
    asked = "timeout x; lease x; pid x"
    assert MemoryServer().connect().ask(f"{asked}; STATUS; timeout 1; lease 1; STATUS") == [
        *("error bad_lease", "", ""),
        *("error bad_pid", "", ""),
    ]


def test_several_locks_are_recalled_with_one_command() -> None:
    server = MemoryServer()
    subscriber(server)
    assert server.connect().ask("locks x y; RECALL")[:3] == ["print_recalled ann", "print_recalled ann", "owner ann"]


@pytest.mark.parametrize("command", ["RENEW", "CHECK"])
def test_who_asks_after_a_grant_is_told_of_its_end(command: str) -> None:
    server = MemoryServer()
    first, last, silent = subscriber(server), server.connect(), server.connect()
    last.say(f"tell 1; {command} x 1; {command} z 3")
    silent.say(f"{command} y 2")
    for peer in (last, silent):
        peer.take()
    server.connect().say("locks x y; BREAK_LOCK")
    assert (first.take(), last.take(), silent.take()) == (b"lost y 2\n", b"lost x 1\n", b"")


@pytest.mark.parametrize("command", ["GOT", "RENEW"])
def test_the_first_sign_of_life_behind_a_waited_grant_is_written(command: str) -> None:
    server = MemoryServer()
    holder = held_by(server)
    peer = waiting(server, "bob", more=NEW)
    holder.say("UNLOCK")
    written: list[set[int]] = []
    server.service.record = lambda images: written.append(set(images))
    peer.say(f"{command} x 2; {command} x 2")
    assert written == [{2}]


@pytest.mark.parametrize("host", ["", "h"])
def test_a_process_is_to_be_looked_for_only_where_it_may_be(host: str) -> None:
    server = MemoryServer()
    held_by(server, more=f"autounlock 1; pid 7; hostname {host}")
    answer = server.connect().ask("user b; autounlock 1; pid 8; hostname h; locks x; LOCK")
    assert answer[0] == ("autounlock_check x h 7 2" if host else "owner ann")


def test_what_has_ended_since_a_list_was_begun_is_not_told_of() -> None:
    server = MemoryServer()
    holder, peer = server.connect(), server.connect()
    holder.send(b"user a\n" + b"".join(b"locks n%d\nLOCK\n" % number for number in range(2500)))
    peer.reads = False
    peer.say("LOCK_INFO")
    holder.say("locks n2499; UNLOCK")
    peer.reads = True
    peer.flush()
    assert peer.take().count(b"held n") == 2499


# What waits for the disk


@pytest.mark.parametrize("command", ["LOCK", "UNLOCK", "STATUS", "BREAK_LOCK", "RECALL", "LOCK_LIST", "LOCK_INFO"])
def test_an_answer_that_shows_what_has_changed_waits_for_the_disk(command: str) -> None:
    peer = MemoryServer().connect()
    peer.say("user a; locks x")
    assert not peer.handler.reveals_uncommitted
    peer.say(command)
    assert peer.handler.reveals_uncommitted


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("command", ["RENEW x 1", "CHECK x 1", "GOT x 1", "VERSION"])
def test_an_answer_about_one_grant_waits_for_the_disk_only_if_that_grant_does(command: str, durable: bool) -> None:
    server = MemoryServer()
    held_by(server)
    server.service.is_durable = lambda token: token != 1 or durable
    peer = server.connect()
    peer.say(command)
    assert peer.handler.reveals_uncommitted == (not durable and command in ("RENEW x 1", "CHECK x 1"))


@pytest.mark.parametrize("how", ["granted", "taken off the queue", "lost"])
def test_what_others_have_changed_waits_for_the_disk_before_it_is_told(how: str) -> None:
    server = MemoryServer()
    holder = held_by(server, more="tell 1")
    waiter = waiting(server, "bob")
    told = holder if how == "lost" else waiter
    told.handler.reveals_uncommitted = False
    if how == "granted":
        holder.say("UNLOCK")
    elif how == "lost":
        server.connect().say("locks x; BREAK_LOCK")
    else:
        server.connect().say("user bob; session bob; locks x; UNLOCK")
    assert told.take() and told.handler.reveals_uncommitted


def test_who_waited_for_what_could_not_be_kept_hears_that_alone_and_waits_no_more() -> None:
    server = MemoryServer()
    held_by(server)
    peer = waiting(server, "bob", more="STATUS")
    peer.reads = False
    peer.say("STATUS; LOCK")
    peer.handler.output.append(b"not told yet\n")
    server.service.fail_waiters(server.service.table.waiters(b"x"))
    peer.reads = True
    peer.closed = False
    peer.flush()
    assert peer.take() == b"error unwritable\n\n\n" and peer.closed
    server.service.apply(server.service.table.break_grants(server.service.table.holders(b"x"), server.now))
    assert server.held() == {}


# Clients that concern each other


def test_the_backlog_of_one_may_serve_the_next_and_so_on() -> None:
    server = MemoryServer()
    holder = held_by(server)
    crowd = [waiting(server, f"u{number}") for number in range(300)]
    for peer in crowd:
        peer.say("UNLOCK; EOF")
    holder.say("UNLOCK")
    assert all(peer.closed and b"print_obtained" in peer.heard for peer in crowd)
    assert server.held() == {}


@pytest.mark.parametrize("behind", ["UNLOCK", "BREAK_LOCK", "BREAK_LOCK; STATUS", "BREAK_LOCK; UNLOCK"])
def test_a_waiter_may_be_served_by_what_stood_behind_the_one_that_it_replaces(behind: str) -> None:
    server = MemoryServer()
    held_by(server)
    first = server.connect()
    first.say(f"user bob; locks x; block 1; LOCK; {behind}")
    second = server.connect()
    second.say("user bob; locks x; block 1; LOCK; STATUS")
    heard = second.take().decode()
    if behind == "UNLOCK":  # it takes off the queue whichever LOCK of this user waits there
        assert heard.startswith("print_waiting ann\nowner ann\nlocked 0\n")
    elif behind.endswith("UNLOCK"):  # it gives back what was granted and could not be told yet
        assert heard.startswith("print_waiting ann\nowner \nlocked 0\n")
    else:
        assert heard.startswith("print_waiting ann\nprint_obtained\nowner bob\nlocked 1\n")
    assert not second.handler.waiting
    holders: dict[str, dict[bytes, bytes]] = {"UNLOCK": {b"x": b"ann"}, "BREAK_LOCK; UNLOCK": {}}
    assert server.held() == holders.get(behind, {b"x": b"bob"})
    assert second.ask("locks y; LOCK")[1] == "locked 1"


def test_one_that_is_at_fault_holds_up_nobody() -> None:
    """Whoever is told first may fail: all the others are told all the same, and later ones too."""
    server = MemoryServer()
    holder = held_by(server)
    broken, next_one = waiting(server, "bob"), waiting(server, "eve")

    def fail() -> None:
        raise MemoryError("planted")

    broken.flush = fail  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        holder.say("UNLOCK")
    broken.gone = True
    server.service.apply(server.service.table.break_grants(server.service.table.holders(b"x"), server.now))
    assert b"print_obtained" in next_one.heard
