"""What may import what: rooms only from those below, the core from the standard library, pure modules nothing else."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import PROJECT

PACKAGE = PROJECT / "ipclocker"
# Python 3.9 has no list of its own modules; an older list may lack a module, which then shows here.
STANDARD = getattr(sys, "stdlib_module_names", None)
IMPURE = {"socket", "select", "selectors", "time", "os", "subprocess", "signal", "threading", "pathlib", "random"}
# Modules that know no socket, clock, file or process, nor bring in another of ours that does.
PURE = {
    "cli/quick_reader.py",
    "docs/tool_spec.py",
    "lock/client/lease.py",
    "lock/model.py",
    "lock/server/effects.py",
    "lock/server/expiries.py",
    "lock/server/grant_index.py",
    "lock/server/held_list.py",
    "lock/server/leader.py",
    "lock/server/listing.py",
    "lock/server/poll_schedule.py",
    "lock/server/recent.py",
    "lock/server/request_handler.py",
    "lock/server/request_pipeline.py",
    "lock/server/table.py",
    "lock/server/wait_queues.py",
    "lock/wire/info.py",
    "lock/wire/replies.py",
    "lock/wire/requests.py",
    "net/line_buffer.py",
    "net/text.py",
    "prefork/pool.py",
    "process/restart_policy.py",
    "supervise/output/line_splitter.py",
    "supervise/program_list.py",
    "supervise/state_machine.py",
}
# The rooms from the top to the ground. A module imports from its own room and from those in the lines below it.
ROOMS = (
    ("zipapp.launcher",),  # the built file's own `__main__`
    ("__main__",),
    ("cli",),
    ("supervise", "run", "doctor", "service_files", "docs", "zipapp"),
    ("lock",),
    ("pid", "prefork"),
    ("daemon",),
    ("process",),
    ("net",),
    ("parameters",),
    ("errors", "version"),
)
# The same inside lock: neither of the first two ever imports the other.
LOCK_ROOMS = (
    ("server", "client"),
    ("report",),
    ("snapshot",),
    ("wire", "storage"),
    ("model", "endpoint", "grant_variables"),
)
# The package itself brings every part in, at the first use of a name; who imports it imports the library.
LIBRARY = "__init__"
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def imports_of(module: str, with_types: bool = False) -> Iterator[str]:
    """What a module imports from outside the package; `with_types`: also what only a type checker sees."""
    tree = ast.parse((PACKAGE / module).read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types and not with_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module is not None:
            yield node.module.split(".")[0]


@pytest.mark.skipif(STANDARD is None, reason="this Python has no list of its modules; the others test it")
@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("cli/")])
def test_the_core_imports_the_standard_library_only(module: str) -> None:
    assert STANDARD is not None
    assert set(imports_of(module, with_types=True)) <= STANDARD | {"ipclocker"}


def modules_of(root: Path) -> dict[str, Path]:
    """The modules below `root` by dotted name; a package is PACKAGE.__init__."""
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in root.rglob("*.py")}


def arrows_of(root: Path) -> dict[str, set[str]]:
    """Which of the modules below `root` each of them imports, wherever in it and even for a type checker alone."""
    modules = modules_of(root)
    arrows: dict[str, set[str]] = {}
    for module, path in modules.items():
        arrows[module] = found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            if node.level:
                place = module.split(".")[: -node.level]
            elif node.module is not None and node.module.split(".")[0] == PACKAGE.name:
                place = []
            else:
                continue
            said = node.module.split(".") if node.module else []
            place += said if node.level else said[1:]
            for alias in node.names:
                names = (".".join([*place, alias.name]), ".".join([*place, alias.name, "__init__"]))
                homes = (".".join(place), ".".join([*place, "__init__"]))
                found.update([name for name in (*names, *homes) if name in modules][:1])
    return arrows


def faults_of(root: Path) -> list[str]:
    """What is wrong with the imports below `root`, a line each."""
    arrows = arrows_of(root)
    rank = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    lock_rank = {room: number for number, rooms in enumerate(LOCK_ROOMS) for room in rooms}
    faults = [f"{module} is in no room" for module in arrows if module.split(".")[0] not in {*rank, LIBRARY}]
    for module, others in sorted(arrows.items()):
        for other in sorted(others):
            (here, *inner), (there, *other_inner) = module.split("."), other.split(".")
            if LIBRARY in (here, there):
                continue
            if here != there and rank.get(module, rank.get(here, -1)) >= rank.get(there, -1):
                faults.append(f"{module} imports {other}, which is not below it")
            ranks = [lock_rank.get(names[0], -1) for names in (inner, other_inner) if names]
            if here == there == "lock" and inner[0] != other_inner[0] and ranks[0] >= ranks[1]:
                faults.append(f"{module} imports {other}, which is not below it")
    for circle in circles_of(arrows):
        faults.append(f"a circle: {' '.join(circle)}")
    return faults


def circles_of(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, directly or not: sets of more than one, each sorted."""
    reach: dict[str, set[str]] = {}
    for module in arrows:
        seen: set[str] = set()
        new = set(arrows[module])
        while new:
            seen |= new
            new = set().union(*(arrows[other] for other in new)) - seen
        reach[module] = seen
    circles = {tuple(sorted(m for m in reach if m in reach[module] and module in reach[m])) for module in reach}
    return [list(circle) for circle in sorted(circles) if len(circle) > 1]


def test_imports_go_from_room_to_room_downwards_and_never_in_a_circle() -> None:
    assert faults_of(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("net/loop.py", "from ..daemon import log", "net.loop imports daemon.log, which is not below it"),
        ("run/options.py", "from ..supervise import settings", "run.options imports supervise.settings, which is not"),
        ("lock/server/table.py", "from ..client import lease", "lock.server.table imports lock.client.lease, which"),
        ("lock/client/lease.py", "from ..server import table", "lock.client.lease imports lock.server.table, which"),
        ("lock/wire/info.py", "from ..client import lease", "lock.wire.info imports lock.client.lease, which is not"),
        ("lock/model.py", "from .wire import info", "lock.model imports lock.wire.info, which is not below it"),
        ("net/address.py", "def f(): from .loop import Loop\nfrom . import address", "a circle: net.address net.loop"),
        ("hosts/new.py", "", "hosts.new is in no room"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, module: str, line: str, fault: str) -> None:
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / module
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{path.read_text() if path.exists() else ''}\n{line}\n")
    if "circle" in fault:
        (copy / "net/loop.py").write_text((copy / "net/loop.py").read_text() + "\nfrom . import address\n")
    assert any(found.startswith(fault) for found in faults_of(copy))


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_knows_no_socket_and_no_clock_and_brings_none_in(module: str) -> None:
    assert not set(imports_of(module)) & IMPURE
    brought = {name.replace(".", "/") + ".py" for name in arrows_of(PACKAGE)[module[:-3].replace("/", ".")]}
    assert all(not set(imports_of(other)) & IMPURE for other in brought)


@pytest.mark.parametrize(
    "statement",
    [
        "import ipclocker.run.under_lock",
        "import ipclocker.cli",
        "from ipclocker import Locker, LockServer",
        "from ipclocker import ProcManager; import ipclocker.prefork",
        "import ipclocker",
    ],
)
def test_what_imports_no_command_line_library(statement: str) -> None:
    check = f"{statement}; import sys; print(*sorted(m for m in ('typer', 'click', 'rich') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("cli/")])
def test_a_module_can_be_imported_first(module: str) -> None:
    """No circle of imports depends on who came first."""
    name = "ipclocker." + module[:-3].replace("/", ".").replace(".__init__", "")
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_lockersh_does_without_as_long_as_it_can() -> None:
    """Where a command runs under no lease: each module is time before it starts, and memory beside it."""
    later = (
        "lock.client.keepalive",
        "lock.client.lease",
        "lock.wire.info",
        "run.lock_guard",
        "process.watchdog",
        "process.tree_killer",
        "net.loop",
    )
    names = [f"ipclocker.{name}" for name in later] + ["threading", "subprocess", "logging", "typer", "click"]
    all_that_it_needs = "ipclocker.cli.lockersh, ipclocker.lock.client.settings, ipclocker.run.under_lock"
    check = f"import {all_that_it_needs}, sys; print(*sorted(set({names}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
