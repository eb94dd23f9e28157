"""What a candidate decides, on an etcd that loses answers and a clock that jumps: never two leaders, never none."""

from __future__ import annotations

from functools import partial
from math import inf

import pytest

from ipclocker.lock.server.leader import Leader

from ...support.candidates import LEADER, TTL, Host, is_led_by, run
from ...support.fake_etcd import LATE, NEVER, REFUSED, REFUSED_BUT_DONE, UNANSWERED, UNUSABLE, Entry, FakeEtcd


@pytest.fixture
def etcd() -> FakeEtcd:
    return FakeEtcd()


@pytest.fixture
def host(etcd: FakeEtcd) -> Host:
    return Host(etcd)


def leader_of(etcd: FakeEtcd) -> Leader:
    return Leader.decode(etcd.keys[LEADER].value.encode())


def test_one_alone_leads_and_says_where_it_is(etcd: FakeEtcd, host: Host) -> None:
    term = host.lead()
    assert host.told == [("elected", term)]
    assert is_led_by(etcd, host) and etcd.keys[LEADER].made == term
    leader = leader_of(etcd)
    assert (leader.host, leader.addresses, leader.version) == ("host1", ("host1:9999",), "1.0")
    assert "host1:9999" in etcd.keys["ipc/member/host1,host1:9999"].value


def test_it_leads_for_as_long_as_it_renews(etcd: FakeEtcd, host: Host) -> None:
    term = host.lead()
    host.run(20 * TTL)
    assert host.term == term and host.heard() == ["elected"] and is_led_by(etcd, host)
    assert 50 < etcd.calls.count("lease/keepalive") <= 2 * 61  # a third of the ttl apart, for each of two leases


def test_a_term_counts_from_before_the_call_was_sent(etcd: FakeEtcd, host: Host) -> None:
    etcd.takes = 1.0
    began = etcd.now
    host.step(0)
    assert host.valid_until == began + 1 + TTL  # the look took a second
    etcd.pass_time(host.valid_until - TTL + TTL / 3 - etcd.now)
    sent = etcd.now
    host.step(0)
    assert host.valid_until == sent + TTL


def test_another_one_stands_by_and_is_told_once_who_leads(etcd: FakeEtcd, host: Host) -> None:
    host.lead()
    other = Host(etcd, "host2")
    run([host, other], 3 * TTL)
    assert [("standing_by", leader_of(etcd))] == other.told
    assert other.term is None and other.valid_until == -inf and host.heard() == ["elected"]


def test_it_takes_over_when_the_leader_is_gone_and_hears_of_each_new_one(etcd: FakeEtcd, host: Host) -> None:
    host.lead()
    other, third = Host(etcd, "host2"), Host(etcd, "host3")
    run([host, other, third], 1)
    run([other, third], TTL + 1)  # the first is dead
    assert is_led_by(etcd, other)
    assert other.heard() == ["standing_by", "elected"] and third.heard() == ["standing_by"] * 2
    assert isinstance(third.told[1][1], Leader) and third.told[1][1].host == "host2"


@pytest.mark.parametrize("trouble", [NEVER, UNANSWERED, LATE, REFUSED, REFUSED_BUT_DONE])
@pytest.mark.parametrize("path", ["kv/range", "lease/grant", "kv/txn", "lease/revoke", "lease/keepalive"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_lost_answer_is_got_over(etcd: FakeEtcd, host: Host, path: str, trouble: str, count: int) -> None:
    etcd.troubles[path] = [trouble] * count
    host.run(3 * TTL)
    etcd.deliver()
    host.run(3 * TTL)
    assert is_led_by(etcd, host)
    assert etcd.calls.count("lease/revoke") <= 4  # one for each attempt


def test_an_attempt_without_an_answer_counts_if_the_key_has_its_value(etcd: FakeEtcd, host: Host) -> None:
    etcd.troubles["kv/txn"] = [UNANSWERED]
    began = etcd.now
    host.step(0)
    assert host.term == etcd.keys[LEADER].made
    assert host.valid_until == began + TTL


def test_an_attempt_that_was_refused_and_yet_done_counts(etcd: FakeEtcd, host: Host) -> None:
    etcd.troubles["kv/txn"] = [REFUSED_BUT_DONE]
    host.lead()
    assert is_led_by(etcd, host)


def test_what_an_attempt_asked_for_does_nothing_after_it_was_given_up(etcd: FakeEtcd, host: Host) -> None:
    etcd.troubles["kv/txn"] = [LATE]
    host.step(0)
    assert host.term is None and host.heard() == ["waiting"]
    etcd.is_down = True
    host.step(0)  # it can't revoke the attempt's lease
    etcd.deliver()
    assert LEADER in etcd.keys  # made for nobody
    etcd.is_down = False
    host.lead()
    assert is_led_by(etcd, host)

    other = Host(etcd, "host2")
    host.resign(1)
    etcd.troubles["kv/txn"] = [LATE]
    other.step(0)
    run([other], 0.5)  # it has revoked it, and leads
    etcd.deliver()
    assert is_led_by(etcd, other)


@pytest.mark.parametrize("trouble", ["", NEVER, UNANSWERED])
def test_one_that_is_overtaken_between_its_look_and_its_attempt_stands_by(
    etcd: FakeEtcd, host: Host, trouble: str
) -> None:
    other = Host(etcd, "host2")

    def overtake() -> None:
        if etcd.calls[-1] == "lease/grant":
            etcd.on_done = lambda: None
            other.lead()
            etcd.troubles["kv/txn"] = [trouble]

    etcd.on_done = overtake
    host.step(0)
    assert host.term is None and host.told == [("standing_by", leader_of(etcd))]
    run([host, other], TTL)
    assert is_led_by(etcd, other)


def test_an_attempt_that_took_longer_than_its_term_is_given_up(etcd: FakeEtcd, host: Host) -> None:
    def suspend() -> None:
        if etcd.calls[-1] == "kv/txn":
            etcd.now += TTL  # etcd is slow to end a lease

    etcd.on_done = suspend
    host.step(0)
    assert host.term is None and host.told == []
    etcd.on_done = lambda: None
    host.run(1)
    assert is_led_by(etcd, host)


def test_a_lease_that_etcd_ended_early_is_a_loss_and_a_new_term(etcd: FakeEtcd, host: Host) -> None:
    term = host.lead()
    etcd.pass_time(0.1)
    etcd.revoke(etcd.keys[LEADER].lease)
    host.run(TTL / 3 + 0.1)
    assert host.heard()[:2] == ["elected", "lost"]
    host.run(1)
    assert host.heard() == ["elected", "lost", "elected"] and is_led_by(etcd, host)
    assert etcd.calls.count("lease/revoke") == 1  # and then it is forgotten
    host.run(TTL)
    assert host.term is not None and host.term > term


@pytest.mark.parametrize("code", [5, 9])
def test_an_etcd_that_knows_no_such_lease_may_say_so_otherwise(etcd: FakeEtcd, host: Host, code: int) -> None:
    """A lease that was not found has ended; for any other reason the renewal is tried again."""
    term = host.lead()
    etcd.refusals["lease/keepalive"] = code
    host.run(TTL / 3 + 0.1)
    etcd.refusals.clear()
    host.run(TTL)
    assert is_led_by(etcd, host) and (host.term == term) == (code != 5)


def test_a_lease_that_was_asked_for_twice_counts(etcd: FakeEtcd, host: Host) -> None:
    """The client asks another member after a lost answer, which then has that lease already."""
    etcd.on_done = lambda: etcd.refusals.update({"lease/grant": 9} if etcd.calls[-1] == "lease/grant" else {})
    host.step(0)
    assert host.term is not None


def test_a_renewal_without_an_answer_is_tried_until_the_term_is_over(etcd: FakeEtcd, host: Host) -> None:
    host.lead()
    until = host.valid_until
    etcd.is_down = True
    while host.term is not None:
        assert etcd.now < until + 0.1 and host.valid_until == until
        etcd.pass_time(host.step(0))
    assert etcd.now == pytest.approx(until) and host.valid_until == -inf
    assert host.told[1][0] == "lost" and "no answer in time" in str(host.told[1][1])
    etcd.is_down = False
    host.run(1)
    assert is_led_by(etcd, host)


def test_one_lost_renewal_costs_nothing(etcd: FakeEtcd, host: Host) -> None:
    term = host.lead()
    for trouble in (NEVER, UNANSWERED, REFUSED, UNUSABLE):
        etcd.troubles["lease/keepalive"] = [trouble]
        host.run(2 * TTL)
    assert host.term == term and host.heard() == ["elected"]


def test_a_loop_that_hangs_lets_the_term_run_out_and_does_not_campaign(etcd: FakeEtcd, host: Host) -> None:
    term = host.lead()
    host.run(TTL, idle=TTL - 0.1)
    assert host.term == term
    until = host.valid_until
    host.run(until - etcd.now + 0.1, idle=TTL)
    assert host.heard() == ["elected", "lost"] and "has not turned" in str(host.told[1][1])
    host.run(TTL, idle=TTL)
    assert host.term is None and LEADER not in etcd.keys
    host.run(1)
    assert is_led_by(etcd, host)


def test_a_loop_that_goes_on_in_time_keeps_the_term(etcd: FakeEtcd, host: Host) -> None:
    term = host.lead()
    host.run(TTL - 0.5, idle=TTL)
    host.run(TTL)
    assert host.term == term and host.heard() == ["elected"]


def test_a_host_that_was_suspended_has_lost(etcd: FakeEtcd, host: Host) -> None:
    host.lead()
    etcd.now += TTL  # etcd has not ended the lease yet
    host.step(0)
    assert host.heard()[:2] == ["elected", "lost"] and "stood still" in str(host.told[1][1])


def test_a_renewal_whose_answer_comes_after_the_term_does_not_revive_it(etcd: FakeEtcd, host: Host) -> None:
    host.lead()
    etcd.pass_time(TTL / 3)

    def suspend() -> None:
        etcd.on_done = lambda: None
        etcd.now += TTL - 1  # the new end would be later

    etcd.on_done = suspend
    host.step(0)
    assert host.heard()[:2] == ["elected", "lost"]


def test_resigning_leaves_nothing_and_tells_nobody(etcd: FakeEtcd, host: Host) -> None:
    host.lead()
    host.resign(1)
    assert not etcd.keys and not etcd.leases and host.heard() == ["elected"] and host.valid_until == -inf


def test_resigning_or_stepping_down_does_not_touch_the_term_of_another(etcd: FakeEtcd, host: Host) -> None:
    other = Host(etcd, "host2")
    for give_up in (partial(host.step_down, "why"), partial(host.resign, 1.0)):
        host.run(2)
        assert host.term is not None
        etcd.revoke(etcd.keys[LEADER].lease)
        other.lead()
        give_up()
        assert is_led_by(etcd, other)
        other.resign(1)


@pytest.mark.parametrize("path", ["kv/txn", "lease/revoke"])
@pytest.mark.parametrize("trouble", [NEVER, LATE, UNANSWERED, REFUSED, UNUSABLE])
def test_resigning_is_bounded_in_time(etcd: FakeEtcd, host: Host, path: str, trouble: str) -> None:
    host.lead()
    etcd.troubles[path] = [trouble] * 9
    began = etcd.now
    host.resign(1)
    assert etcd.now <= began + 1.001
    if path != "kv/txn":
        assert LEADER not in etcd.keys  # deleted before its lease was revoked
    etcd.pass_time(TTL)
    etcd.deliver()
    assert not etcd.keys


def test_one_that_stepped_down_lets_the_others_look_first(etcd: FakeEtcd, host: Host) -> None:
    host.lead()
    other = Host(etcd, "host2")
    run([host, other], 1)
    host.step_down("its store failed")
    assert host.told[-1] == ("lost", "its store failed") and LEADER not in etcd.keys
    run([host, other], 3)
    assert is_led_by(etcd, other)
    assert host.heard() == ["elected", "lost", "standing_by"]


def test_one_that_stepped_down_without_others_leads_again(etcd: FakeEtcd, host: Host) -> None:
    host.lead()
    etcd.troubles["kv/txn"] = [NEVER]
    host.step_down("its store failed")
    host.run(3)
    assert is_led_by(etcd, host) and host.heard() == ["elected", "lost", "elected"]


def test_its_member_key_comes_back_and_costs_no_term(etcd: FakeEtcd, host: Host) -> None:
    term = host.lead()
    etcd.revoke(etcd.keys["ipc/member/host1,host1:9999"].lease)
    etcd.troubles["kv/txn"] = [NEVER, LATE, REFUSED]
    etcd.troubles["lease/grant"] = [NEVER, UNANSWERED, REFUSED]
    host.run(5 * TTL)
    assert "ipc/member/host1,host1:9999" in etcd.keys and host.term == term and host.heard() == ["elected"]


def test_two_of_one_host_name_have_a_member_key_each(etcd: FakeEtcd, host: Host) -> None:
    other = Host(etcd, port=9998)
    run([host, other], TTL)
    assert {key for key in etcd.keys if "member" in key} == {
        "ipc/member/host1,host1:9999",
        "ipc/member/host1,host1:9998",
    }
    other.resign(1)
    assert [key for key in etcd.keys if "member" in key] == ["ipc/member/host1,host1:9999"]


def test_its_member_key_does_not_stay_away_because_its_lease_ended_before_it_was_written(
    etcd: FakeEtcd, host: Host
) -> None:
    host.step(0)
    for lease in set(etcd.leases) - {etcd.keys[LEADER].lease}:
        etcd.revoke(lease)
    host.run(2)
    assert "ipc/member/host1,host1:9999" in etcd.keys


def test_an_etcd_that_refuses_at_once_is_not_asked_without_end(etcd: FakeEtcd, host: Host) -> None:
    host.lead()
    etcd.refusals = dict.fromkeys(("lease/keepalive", "lease/grant", "lease/revoke", "kv/range", "kv/txn"), 9)
    before = len(etcd.calls)
    host.run(10)
    assert len(etcd.calls) - before < 100


def test_an_etcd_that_does_not_answer_is_waited_for_and_told_once(etcd: FakeEtcd, host: Host) -> None:
    other = Host(etcd, "host2")
    host.lead()
    other.step(0)
    etcd.is_down = True
    other.run(TTL / 3)
    assert other.heard() == ["standing_by", "waiting"]
    etcd.is_down = False
    run([host, other], 1)
    assert other.heard() == ["standing_by", "waiting", "standing_by"]


def test_what_is_wrong_from_the_start_is_fatal_and_later_is_waited_for(etcd: FakeEtcd, host: Host) -> None:
    etcd.troubles["kv/range"] = [UNUSABLE]
    assert host.step(0) == inf and host.heard() == ["failed"]
    other = Host(etcd, "host2")
    host.lead()
    other.step(0)
    etcd.troubles["kv/range"] = [UNUSABLE] * 3
    other.run(TTL - 1)
    assert other.heard() == ["standing_by", "waiting", "standing_by"]


def test_a_full_etcd_is_told_and_tried_again(etcd: FakeEtcd, host: Host) -> None:
    etcd.troubles["lease/grant"] = [REFUSED] * 5
    host.run(4)
    assert host.told == [("waiting", "etcd refused the request: etcdserver: mvcc: database space exceeded")]
    host.run(10)
    assert is_led_by(etcd, host)


@pytest.mark.parametrize("value", ["", "x", "[]", "{}", '{"host": 1}', "[" * 100_000, "\ud7ff"])
def test_a_key_that_no_lockerd_wrote_is_told_and_left_alone(etcd: FakeEtcd, host: Host, value: str) -> None:
    etcd.keys[LEADER] = Entry(value, "", 1)
    host.run(1)
    assert host.heard() == ["waiting"] and etcd.keys[LEADER].value == value
    del etcd.keys[LEADER]
    host.run(1)
    assert host.term is not None


def test_what_a_newer_version_says_of_itself_can_be_read() -> None:
    leader = Leader("h", ("a:1", "b:2"), 7, 1.5, "2.0", "x")
    assert Leader.decode(leader.encode()) == leader
    assert Leader.decode(b'{"host": "h", "new": [], "addresses": "changed", "pid": "?"}').host == "h"
