"""Nothing is imported from where somebody else could have put it.

To see whose modules a run used, these tests plant a pack that prints "planted": a run that trusts it says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from ..support.site import NOBODY_UID, PYTHON, Run, as_root

# Writes a pack in which the last part of the launcher does nothing but print; for the interpreter that runs it.
PLANTER = """
import marshal, sys
index, codes = {}, b""
for name, source in {
    "ipclocker": "", "ipclocker.zipapp": "", "ipclocker.zipapp.exit": "print('planted'); run_and_exit = id"
}.items():
    code = marshal.dumps(compile(source, "planted.py", "exec"))
    index[name] = (name != "ipclocker.zipapp.exit", len(codes), len(codes) + len(code))
    codes += code
index[""] = (False, 0, len(codes))
head = marshal.dumps(index)
sys.stdout.buffer.write(len(head).to_bytes(4, "little") + head + codes)
"""


def plant(run: Run) -> Path:
    """Put a planted pack in place of the real one."""
    run.works()
    path = run.pack
    path.write_bytes(subprocess.run([PYTHON, "-ISc", PLANTER], check=True, capture_output=True).stdout)
    return path


def other_owner(run: Run, pack: Path) -> None:
    os.chown(run.folder, NOBODY_UID, NOBODY_UID)


def group_may_write(run: Run, pack: Path) -> None:
    run.folder.chmod(0o770)


def all_may_write(run: Run, pack: Path) -> None:
    run.folder.chmod(0o1777)


def pack_of_another(run: Run, pack: Path) -> None:
    os.chown(pack, NOBODY_UID, NOBODY_UID)


def pack_others_may_write(run: Run, pack: Path) -> None:
    pack.chmod(0o666)


def pack_is_a_link(run: Run, pack: Path) -> None:
    pack.rename(run.cache / "elsewhere")
    pack.symlink_to(run.cache / "elsewhere")


def folder_is_a_link(run: Run, pack: Path) -> None:
    run.folder.rename(run.cache / "elsewhere")
    run.folder.symlink_to("elsewhere")


def parent_others_may_write(run: Run, pack: Path) -> None:
    run.cache.chmod(0o777)


def parent_of_another(run: Run, pack: Path) -> None:
    os.chown(run.cache, NOBODY_UID, NOBODY_UID)


def grandparent_of_another(run: Run, pack: Path) -> None:
    os.chown(run.cache.parent, NOBODY_UID, NOBODY_UID)


class TestTrust:
    """Nothing is imported from where somebody else could have put it."""

    def test_a_planted_pack_would_be_seen(self, run: Run) -> None:
        plant(run)
        assert run().stdout == "planted\n"

    @as_root
    @pytest.mark.parametrize(
        "attack",
        [
            other_owner,
            group_may_write,
            all_may_write,
            pack_of_another,
            pack_others_may_write,
            pack_is_a_link,
            folder_is_a_link,
            parent_others_may_write,
            parent_of_another,
            grandparent_of_another,
        ],
    )
    def test_a_pack_is_not_trusted(self, run: Run, attack: Callable[[Run, Path], None]) -> None:
        attack(run, plant(run))
        run.works()

    @as_root
    def test_a_shared_sticky_folder_is_trusted(self, run: Run) -> None:
        run.cache.chmod(0o1777)
        plant(run)
        assert run().stdout == "planted\n"

    @as_root
    def test_a_user_does_not_trust_what_another_left(self, run: Run, open_folder: Path) -> None:
        """The folder of user 65534, made beforehand by user 1, who knows what will be looked for."""
        planted_pack = plant(run)
        folder = open_folder / f"ipclocker-{NOBODY_UID}"
        folder.mkdir()
        shutil.copy(planted_pack, folder)
        there = Run(Path(shutil.copy(run.file, open_folder)), open_folder)
        as_nobody: dict[str, Any] = {"user": NOBODY_UID, "group": NOBODY_UID, "extra_groups": []}
        for owner, ours in [(NOBODY_UID, True), (1, False), (0, False)]:
            for path in (folder, *folder.iterdir()):
                os.chown(path, owner, owner)
                path.chmod(0o755)
            if ours:
                assert there(**as_nobody).stdout == "planted\n"
            else:
                there.works(**as_nobody)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that, unlike pytest's, all users can look into, and write into as into /tmp."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o1777)
        yield Path(name)
