"""The facts that doctor asks a real etcd for, and that it leaves nothing there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipclocker.doctor.etcd_checks import judge
from ipclocker.doctor.etcd_probe import EtcdFacts, EtcdMember, ask_etcd
from ipclocker.doctor.finding import FAILED, OK, WARNING
from ipclocker.errors import StateError
from ipclocker.lock.storage.etcd_settings import EtcdSettings

from ..support.etcd import Etcd, running_etcd


def ask(etcd: Etcd, prefix: str = "ipclocker/") -> EtcdFacts:
    return ask_etcd(EtcdSettings(tuple(etcd.urls), prefix))


def state_of(facts: EtcdFacts, name: str) -> str:
    [found] = [finding for finding in judge(facts) if finding.name == name]
    return found.state


def test_all_is_well_and_nothing_is_left(etcd: Etcd) -> None:
    for key, value in {"format": "1", "space": "f00", "lock/a/1": "{}", "member/h": "{}", "served": "1"}.items():
        etcd.put(f"ipclocker/{key}", value)
    etcd.put("another", "x")
    before = etcd.keys(), etcd.leases()
    facts = ask(etcd)
    assert (etcd.keys(), etcd.leases()) == before
    assert {finding.state for finding in judge(facts)} == {OK}
    [member] = facts.members.values()
    assert isinstance(member, EtcdMember) and member.version.startswith("3.") and member.size > 0
    assert facts.revision > 0 and facts.write_seconds is not None


def test_compaction_is_seen(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "e") as etcd:
        etcd.put("a", "b")
        etcd.put("a", "c")
        assert not ask(etcd).compacted
        etcd.ctl("compact", "2")
        assert ask(etcd).compacted


def test_lock_spaces_within_each_other(etcd: Etcd) -> None:
    etcd.put("farm/format", "1")
    assert ask(etcd, "farm/a").overlap == "farm/a/ is within another one's prefix ('farm/format' is there)"
    assert ask(etcd, "farm").overlap == ""
    etcd.put("farm/a/format", "1")
    assert ask(etcd, "farm").overlap == "under farm/ there is 'farm/a/format', which is not of its locks"
    etcd.put("farm/zz", "1")
    etcd.delete("farm/a/")
    assert "'farm/zz'" in ask(etcd, "farm").overlap, "behind the locks, too"


def test_a_space_that_is_used_up(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "e", 1, "--quota-backend-bytes", str(1 << 20)) as etcd:
        with pytest.raises(AssertionError, match="space exceeded"):
            for number in range(200):
                etcd.put(f"other/{number}", "x" * 100_000)
        facts = ask(etcd)
        assert facts.alarms == ("NOSPACE",)
        assert facts.write_seconds is None and "space exceeded" in facts.write_problem
        [found] = [finding for finding in judge(facts) if finding.name == "etcd space"]
        assert found.state == FAILED
        etcd.delete("other/")
        for command in found.advice.split("; "):  # as they are said; the revision is one of a moment ago
            etcd.ctl(*command.split()[3:])
        etcd.ctl("compact", str(ask(etcd).revision))
        etcd.ctl("defrag")
        etcd.ctl("alarm", "disarm")
        assert ask(etcd).write_problem == ""


def test_members_that_are_gone(tmp_path: Path) -> None:
    with running_etcd(tmp_path / "e", 3) as etcd:
        etcd.members[1].kill()
        facts = ask(etcd)
        assert facts.problem == "" and isinstance(facts.members[etcd.urls[1]], str)
        assert state_of(facts, f"etcd member {etcd.urls[1]}") == WARNING
        etcd.members[2].kill()
        facts = ask(etcd)
        assert facts.problem, "there is no quorum"
        assert state_of(facts, "etcd") == FAILED


def test_a_newer_format_and_a_file_that_is_none(etcd: Etcd, tmp_path: Path) -> None:
    etcd.put("ipclocker/format", "3")
    assert "are of format 3" in ask(etcd).problem
    with pytest.raises(StateError, match="password can't be read"):
        ask_etcd(EtcdSettings(tuple(etcd.urls), user="u", password_file=str(tmp_path / "none")))


def test_one_that_is_none_at_all() -> None:
    facts = ask_etcd(EtcdSettings(("http://127.0.0.1:1",)))
    assert "refused" in str(facts.members["http://127.0.0.1:1"]) and facts.problem


def test_a_user_that_may_use_its_prefix_only(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    with running_etcd(tmp_path / "e") as etcd:
        etcd.require_users(lockerd=("secret", "ipclocker/"))
        settings = EtcdSettings(tuple(etcd.urls), user="lockerd", password_file=str(tmp_path / "password"))
        facts = ask_etcd(settings)
        assert {finding.state for finding in judge(facts)} == {OK}, facts
        assert etcd.leases() == []
        denied = ask_etcd(settings._replace(prefix="other/"))
        assert "permission denied" in denied.problem
