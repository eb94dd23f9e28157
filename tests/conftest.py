"""Fixtures that all tests share, and the signals that they start with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from .support import PROJECT
from .support.etcd import Etcd, running_etcd
from .support.site import PYTHON, Run

# No test asserts speed: a busy machine is no reason to fail.
# It says nothing about the product that making an example takes long. Half of Hypothesis's own number of examples:
# where more are needed, the test says so.
settings.register_profile("patient", deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Let the programs that tests start have no signal ignored, as under nohup or behind `&` in a script.

    A handler is reset to the default action by execve(2), which leaves an ignored signal ignored. So this process
    stays as safe as it was. It concerns those that run tests; the one that xdist distributes them from does not.
    """
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # which Python itself ignores
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, lambda *_: None)


_LONGEST = ("proof/", "test_makefile.py", "run/", "end_to_end/", "lock/")  # that begin first, or they would end last
_AFTER_HOSTS = "end_to_end/test_hosts_etcd.py"  # until another process has made the hosts, it would do nothing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first: each file is run by one process, and the last ones would keep it alone."""

    def place(item: pytest.Item) -> int:
        path = item.nodeid.removeprefix("tests/")
        if path.startswith(_AFTER_HOSTS):
            return len(_LONGEST)
        return next((number for number, begin in enumerate(_LONGEST) if path.startswith(begin)), len(_LONGEST))

    items.sort(key=place)


_FOUND = 6  # exit code: a proof has found a fault
_found: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a proof that has failed, unless it is only that too little has happened."""
    if report.failed and "tests/proof/" in report.nodeid and "Stuck" not in report.longreprtext:
        _found.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Say by another exit code that a proof has failed: what it has found may come once in a thousand runs."""
    if _found:
        session.exitstatus = _FOUND


@pytest.fixture(scope="session")
def built_file() -> Path:
    """The one file that is copied to hosts, built again if any source is newer."""
    # Under `make test`, make's own variables would reach this make.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(["make", "--silent", "dist/ipclocker"], cwd=PROJECT, env=environment, check=True)
    return PROJECT / "dist" / "ipclocker"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the built file keeps its modules, so that nothing is left on this host."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def module_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """An etcd of one member, without TLS and users, for the tests of one file."""
    with running_etcd(tmp_path_factory.mktemp("etcd") / "one") as etcd:
        yield etcd


@pytest.fixture
def etcd(module_etcd: Etcd) -> Etcd:
    """The same, with nothing in it."""
    module_etcd.clear()
    return module_etcd


@pytest.fixture
def run(built_file: Path, tmp_path: Path) -> Run:
    if not Path(PYTHON).exists():
        pytest.skip(f"this host has no {PYTHON}")
    cache = tmp_path / "cache"
    cache.mkdir()
    return Run(built_file, cache)


@pytest.fixture(autouse=True)
def no_idle_connections_of_another_test() -> Iterator[None]:
    """Close those of Lockers that were released: else a fork of a later test does so, which may count descriptors."""
    yield
    idle = sys.modules.get("ipclocker.lock.client.idle")
    if idle is not None:
        idle._close_all()
