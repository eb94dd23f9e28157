"""What doctor makes of the facts about an etcd."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ipclocker.doctor.etcd_checks import judge
from ipclocker.doctor.etcd_probe import EtcdFacts, EtcdMember
from ipclocker.doctor.finding import FAILED, OK, WARNING

MEMBER = EtcdMember("3.5.9", 20 << 20, 0)
GOOD = EtcdFacts({"http://a:1": MEMBER, "http://b:1": MEMBER}, "", 500, True, (), "", 0.001)


def test_one_with_which_all_is_well() -> None:
    findings = judge(GOOD)
    assert [finding.name for finding in findings] == [
        *("etcd member http://a:1", "etcd member http://b:1", "etcd speed", "etcd compaction", "etcd space"),
        "etcd prefix",
    ]
    assert all(finding.state == OK and finding.found and not finding.advice for finding in findings)


@pytest.mark.parametrize(
    ("facts", "name", "state", "said"),
    [
        ({"members": {"http://a:1": MEMBER, "b": "refused"}}, "etcd member b", WARNING, "refused / start it there"),
        ({"members": {"b": "refused"}, "problem": "no answer"}, "etcd member b", FAILED, "refused / start it there"),
        (
            {"members": {"a": EtcdMember("3.5.1", 1, 0)}},
            "etcd member a",
            FAILED,
            r"version 3\.5\.1 / .*two hold a lock: use 3\.5\.6 or newer",
        ),
        ({"problem": "no answer"}, "etcd", FAILED, "no answer / see that more than half of its members run"),
        ({"write_seconds": 0.06}, "etcd speed", WARNING, "takes 0.0600 s / .*a disk of its own"),
        ({"write_seconds": 1.5}, "etcd speed", FAILED, "takes 1.5000 s / .*a disk of its own"),
        ({"write_seconds": None, "write_problem": "denied"}, "etcd speed", FAILED, "denied / .*the right to write"),
        ({"compacted": False, "revision": 10**6}, "etcd compaction", FAILED, "1000000 revisions.*no-etcd-compaction"),
        (
            {"members": {"a": EtcdMember("3.4", 1800 << 20, 0)}},
            "etcd space",
            WARNING,
            "1800.0 MB .*2 GiB.*quota-backend",
        ),
        ({"members": {"a": EtcdMember("3.6", 90 << 20, 100 << 20)}}, "etcd space", WARNING, "90.0 MB of 100 / "),
        (
            {"alarms": ("NOSPACE",)},
            "etcd space",
            FAILED,
            "the alarm NOSPACE / etcdctl --endpoints http://a:1,http://b:1 compact 500; "
            "etcdctl .* defrag; etcdctl --endpoints http://a:1,http://b:1 alarm disarm",
        ),
        (
            {"overlap": "x/ is within another one's"},
            "etcd prefix",
            FAILED,
            "within another one's / .*prefix of its own",
        ),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(facts: dict[str, Any], name: str, state: str, said: str) -> None:
    findings = judge(GOOD._replace(**facts))
    [found] = [finding for finding in findings if finding.name == name]
    assert found.state == state
    assert re.search(said, f"{found.found} / {found.advice}")
    assert all(finding.advice for finding in findings if finding.state != OK)


@pytest.mark.parametrize(
    ("facts", "name", "said"),
    [
        *(
            ({"members": {"a": EtcdMember(version, 1, 0)}}, "etcd member a", f"version {version}")
            for version in ("3.4.23", "3.5.6", "3.5.30", "3.6.0", "3.7.0-rc.1", "?")
        ),
        ({"compacted": False}, "etcd compaction", "none was needed yet, at revision 500"),
        ({"members": {"a": EtcdMember("3.6", 50 << 20, 100 << 20)}}, "etcd space", "50.0 MB of 100"),
    ],
)
def test_what_is_no_fault(facts: dict[str, Any], name: str, said: str) -> None:
    [found] = [finding for finding in judge(GOOD._replace(**facts)) if finding.name == name]
    assert (found.state, found.found) == (OK, said)
