"""What may import what: the core runs on the standard library alone, and what is pure stays pure."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "ipclocker"
# Python 3.9 has no list of its own modules; an older list may lack a module, which then shows here.
STANDARD = getattr(sys, "stdlib_module_names", None)
IMPURE = {"socket", "select", "selectors", "time", "os", "subprocess", "signal", "threading", "pathlib", "random"}
PURE = {
    "lock/server/table.py": IMPURE,
    "lock/wire/requests.py": IMPURE,
    "lock/wire/replies.py": IMPURE,
    "lock/model.py": IMPURE,
    "lock/wire/info.py": IMPURE,
    "lock/server/request_handler.py": IMPURE,
    "lock/client/lease.py": IMPURE,
    "lock/server/service.py": IMPURE - {"time"},
    "net/line_buffer.py": IMPURE,
    "supervise/output/line_splitter.py": IMPURE,
    "supervise/state_machine.py": IMPURE,
    "process/restart_policy.py": IMPURE,
    "supervise/program_list.py": IMPURE,
    "prefork/pool.py": IMPURE,
}
CORE = ("lock/", "daemon/", "pid/", "supervise/")
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def imports_of(module: str) -> Iterator[str]:
    """What a module imports from outside the package, wherever in it, but not what only a type checker sees."""
    tree = ast.parse((PACKAGE / module).read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module is not None:
            yield node.module.split(".")[0]


@pytest.mark.skipif(STANDARD is None, reason="this Python has no list of its modules; the others test it")
@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("cli/")])
def test_the_core_imports_the_standard_library_only(module: str) -> None:
    assert STANDARD is not None
    assert set(imports_of(module)) <= STANDARD | {"ipclocker"}


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_knows_no_socket_and_no_clock(module: str) -> None:
    assert not set(imports_of(module)) & PURE[module]


@pytest.mark.parametrize("module", ["lock/wire/requests.py", "lock/server/table.py"])
def test_a_pure_module_brings_no_other_in_that_is_not(module: str) -> None:
    """What it imports from this package is pure too."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            name = f"lock/{node.module}.py" if node.level == 1 else f"{node.module}.py".replace(".", "/", 1)
            assert name in PURE or not set(imports_of(name)) & IMPURE


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


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith(CORE)])
def test_a_module_can_be_imported_first(module: str) -> None:
    """No circle of imports depends on who came first."""
    name = "ipclocker." + module[:-3].replace("/", ".").replace(".__init__", "")
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_lockersh_does_without_as_long_as_it_can() -> None:
    """Where a command runs under no lease: each module is time before it starts, and memory beside it."""
    later = ("lock.keeper", "lock.lease", "lock.info", "run.beside", "run.deputy", "run.ending", "daemon.loop")
    names = [f"ipclocker.{name}" for name in later] + ["threading", "subprocess", "logging"]
    check = f"import ipclocker.cli.lockersh, sys; print(*sorted(set({names}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
