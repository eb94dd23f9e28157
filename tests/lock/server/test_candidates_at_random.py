"""Candidates on an etcd that loses answers at random: who believes to lead does, and in the end one does."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ...support.candidates import LEADER, TTL, Host, is_led_by, run
from ...support.fake_etcd import LATE, NEVER, REFUSED, REFUSED_BUT_DONE, UNANSWERED, FakeEtcd

TROUBLES = st.lists(st.sampled_from(["", "", "", NEVER, UNANSWERED, LATE, REFUSED, REFUSED_BUT_DONE]), max_size=4)
PATHS = ("kv/range", "lease/grant", "kv/txn", "lease/revoke", "lease/keepalive")
ACTIONS = st.one_of(
    st.tuples(st.just("step"), st.integers(0, 2), st.sampled_from([0.0, 0.0, TTL])),
    st.tuples(st.just("run"), st.floats(0.1, TTL), st.integers(1, 3)),
    st.tuples(st.just("time"), st.floats(0.1, 1.5 * TTL), st.none()),
    st.tuples(st.just("suspend"), st.integers(0, 30), st.floats(0.1, 2 * TTL)),
    st.tuples(st.just("trouble"), st.sampled_from(PATHS), TROUBLES),
    st.tuples(st.just("slow"), st.sampled_from([0.0, 0.4, 1.0, 2.5]), st.none()),
    st.tuples(st.just("deliver"), st.none(), st.none()),
    st.tuples(st.just("die"), st.integers(0, 2), st.none()),
    st.tuples(st.just("step down"), st.integers(0, 2), st.none()),
    st.tuples(st.just("resign"), st.integers(0, 2), st.floats(0.1, 2)),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, max_size=40))
def test_whatever_happens_who_believes_to_lead_does_and_in_the_end_one_does(actions: list[tuple[str, ...]]) -> None:
    """As long as etcd keeps leases to their end: within each call, and after it."""
    etcd = FakeEtcd()
    hosts = [Host(etcd, f"host{number}") for number in range(3)]
    suspend: list[float] = []  # what one of the next calls does

    def check() -> None:
        if suspend:
            etcd.pass_time(suspend.pop())
        for host in hosts:
            if etcd.now < host.valid_until:
                assert host.term is not None and LEADER in etcd.keys and etcd.keys[LEADER].made == host.term

    etcd.on_done = check
    for action, one, two in actions:
        do(etcd, hosts, suspend, action, one, two)
        check()
    etcd.takes = 0.0
    etcd.troubles.clear()
    suspend.clear()
    etcd.deliver()
    run(hosts, 3 * TTL)
    (leading,) = [host for host in hosts if host.term is not None]
    assert is_led_by(etcd, leading)


def do(etcd: FakeEtcd, hosts: list[Host], suspend: list[float], action: str, one: object, two: object) -> None:
    if action == "step":
        hosts[int(str(one))].step(float(str(two)))
    elif action == "run":
        run(hosts[: int(str(two))], float(str(one)))
    elif action == "time":
        etcd.pass_time(float(str(one)))
    elif action == "suspend":
        suspend[:] = [float(str(two)), *[0.0] * int(str(one))]
    elif action == "trouble":
        assert isinstance(two, list)
        etcd.troubles[str(one)] = two[:]
    elif action == "slow":
        etcd.takes = float(str(one))
    elif action == "deliver":
        etcd.deliver()
    elif action == "die":
        hosts[int(str(one))] = Host(etcd, f"host{one}")
    elif action == "step down":
        hosts[int(str(one))].step_down("why")
    else:
        hosts[int(str(one))].resign(float(str(two)))
