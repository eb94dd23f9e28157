"""What doctor makes of the facts about an etcd."""

from __future__ import annotations

from ..lock.storage.etcd_client import read_version
from .etcd_probe import EtcdFacts, EtcdMember
from .finding import FAILED, OK, WARNING, Finding

SLOW, TOO_SLOW = 0.05, 1.0  # seconds of a transaction; each change of a lock waits for one
_MANY_REVISIONS = 100_000  # 30 MB of them
_DEFAULT_QUOTA = 2 << 30  # bytes of a database, unless etcd was told another number
_NEARLY_FULL = 0.8  # of the quota
# From the first to below the second, members that were killed have differed from the others: etcd's 13766, 14685.
_FORGETFUL, _MENDED = (3, 5), (3, 5, 6)


def judge(facts: EtcdFacts) -> list[Finding]:
    """Say what is wrong with an etcd, and what to do."""
    findings = _members(facts)
    if facts.problem:
        advice = "see that more than half of its members run and reach each other, and that the options are right"
        return [*findings, Finding("etcd", FAILED, facts.problem, advice)]
    return [*findings, _speed(facts), _compaction(facts), _space(facts), _prefix(facts)]


def _members(facts: EtcdFacts) -> list[Finding]:
    findings = []
    for url, found in facts.members.items():
        name = f"etcd member {url}"
        if isinstance(found, EtcdMember):
            findings.append(_version(name, found.version))
        else:
            advice = "start it there, or put the URL right; let the network's firewalls pass its port"
            findings.append(Finding(name, FAILED if facts.problem else WARNING, found, advice))
    return findings


def _version(name: str, version: str) -> Finding:
    if _FORGETFUL <= read_version(version) < _MENDED:
        advice = "a member that is killed may forget what was committed, so that two hold a lock: use 3.5.6 or newer"
        return Finding(name, FAILED, f"version {version}", advice)
    return Finding(name, OK, f"version {version}")


def _speed(facts: EtcdFacts) -> Finding:
    if facts.write_seconds is None:
        advice = "no lock can be granted like that: give the user the right to write under the prefix"
        if "NOSPACE" in facts.alarms:
            advice = "see below"
        return Finding("etcd speed", FAILED, facts.write_problem, advice)
    found = f"a transaction takes {facts.write_seconds:.4f} s"
    advice = "each change of a lock waits for one: give etcd a disk of its own that flushes fast, and a near network"
    if facts.write_seconds > SLOW:
        return Finding("etcd speed", FAILED if facts.write_seconds > TOO_SLOW else WARNING, found, advice)
    return Finding("etcd speed", OK, found)


def _compaction(facts: EtcdFacts) -> Finding:
    if facts.compacted:
        return Finding("etcd compaction", OK, "old revisions are dropped")
    if facts.revision < _MANY_REVISIONS:
        return Finding("etcd compaction", OK, f"none was needed yet, at revision {facts.revision}")
    advice = "leave out lockerd's --no-etcd-compaction, or start etcd with --auto-compaction-retention"
    return Finding(
        "etcd compaction", FAILED, f"all {facts.revision} revisions are kept, until its space is used up", advice
    )


def _space(facts: EtcdFacts) -> Finding:
    members = [found for found in facts.members.values() if isinstance(found, EtcdMember)]
    size, quota = max((member.size, member.quota) for member in members) if members else (0, 0)
    found = f"{size / (1 << 20):.1f} MB"
    if quota:
        found += f" of {quota / (1 << 20):.0f}"
    if facts.alarms:
        endpoints = ",".join(facts.members)
        commands = "; ".join(
            f"etcdctl --endpoints {endpoints} {words}"
            for words in (f"compact {facts.revision}", "defrag", "alarm disarm")
        )
        return Finding("etcd space", FAILED, f"{found}, with the alarm {', '.join(facts.alarms)}", commands)
    if size > _NEARLY_FULL * (quota or _DEFAULT_QUOTA):
        limit = "" if quota else " (its quota is 2 GiB unless it was told another one)"
        advice = "drop old revisions and defragment it (etcdctl compact, defrag), or start it with more: "
        return Finding("etcd space", WARNING, f"{found}{limit}", f"{advice}--quota-backend-bytes")
    return Finding("etcd space", OK, found)


def _prefix(facts: EtcdFacts) -> Finding:
    if facts.overlap:
        advice = "give each lock space a prefix of its own (--etcd-prefix), and nothing else below it"
        return Finding("etcd prefix", FAILED, facts.overlap, advice)
    return Finding("etcd prefix", OK, "nobody else's keys are there")
