"""What lies about on a host has no effect on what the built file imports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.site import PYTHON, Run


@pytest.fixture
def poison(tmp_path: Path) -> Path:
    """A folder of modules that we import and that end the process if somebody else's are taken for them."""
    folder = tmp_path / "poison"
    for name in (
        "typer",
        "click",
        "rich",
        "ipclocker",
        "annotated_doc",
        "shutil",
        "sitecustomize",
        "usercustomize",
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("import os\nos.write(2, b'poisoned\\n')\nos._exit(99)\n")
    return folder


class TestIsolation:
    """Whatever lies about has no effect, also where the file is run as `python3 ipclocker`."""

    def test_the_environment(self, run: Run, poison: Path) -> None:
        environment = run.environment(
            PYTHONPATH=str(poison),
            PYTHONHOME="/nowhere",
            PYTHONUSERBASE=str(poison),
            PYTHONSTARTUP=str(poison / "typer/__init__.py"),
            PYTHONOPTIMIZE="2",
            PYTHONVERBOSE="1",
            PYTHONWARNINGS="error",
            VIRTUAL_ENV=str(poison),
            SHIV_ENTRY_POINT="os:abort",
            SHIV_INTERPRETER="1",
            TMPDIR=str(poison),
        )
        run.works(env=environment)
        run.works(env=environment)

    @pytest.mark.parametrize("before", [(), (PYTHON,)], ids=["by its first line", "by python3"])
    def test_the_current_folder(self, run: Run, poison: Path, before: tuple[str, ...]) -> None:
        run.works(*before, cwd=poison)
        run.works(*before, cwd=poison)

    def test_a_python_path_with_modules_that_the_interpreter_does_not_load_itself(self, run: Run, poison: Path) -> None:
        for name in ("sitecustomize", "usercustomize"):
            shutil.rmtree(poison / name)
        run.works(PYTHON, env=run.environment(PYTHONPATH=str(poison)))

    @pytest.mark.parametrize("before", [(), (PYTHON,)], ids=["by its first line", "by python3"])
    def test_the_users_own_packages(self, run: Run, poison: Path, before: tuple[str, ...]) -> None:
        for name in ("sitecustomize", "usercustomize"):
            shutil.rmtree(poison / name)
        found = subprocess.run(
            [PYTHON, "-c", "import site; print(site.USER_SITE)"],
            text=True,
            capture_output=True,
            env={"HOME": "/home"},
        )
        home = poison.parent / "home"
        packages = home / Path(found.stdout.strip()).relative_to("/home")
        packages.parent.mkdir(parents=True)
        poison.rename(packages)
        run.works(*before, env=run.environment(HOME=str(home)))

    def test_an_activated_virtual_environment(self, run: Run, poison: Path, tmp_path: Path) -> None:
        environment = tmp_path / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
        [packages] = environment.glob("lib/python*/site-packages")
        for name in ("typer", "click", "rich", "ipclocker"):
            shutil.copytree(poison / name, packages / name)
        path = f"{environment}/bin:{os.environ['PATH']}"
        run.works(env=run.environment(PATH=path, VIRTUAL_ENV=str(environment)))
        run.works(environment / "bin/python3", env=run.environment(PATH=path))
