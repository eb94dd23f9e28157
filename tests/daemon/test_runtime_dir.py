"""The runtime folder: one that others could change is not used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipclocker.daemon import runtime_dir
from ipclocker.daemon.runtime_dir import make_runtime_folder, runtime_folders
from ipclocker.errors import StateError

from ..support.site import NOBODY_UID, as_root


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two places for it."""
    found = [tmp_path / name for name in ("first", "second")]
    for place in found:
        place.mkdir()
    monkeypatch.setattr(runtime_dir, "_places", lambda purpose: [f"{place}/{purpose}" for place in found])
    return found


def test_it_is_made_for_its_user_alone(places: list[Path]) -> None:
    assert runtime_folders("test") == []
    folder = make_runtime_folder("test")
    assert folder == str(places[0] / "test") == make_runtime_folder("test")
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert runtime_folders("test") == [folder]


def test_one_that_is_not_safe_is_passed_over(places: list[Path]) -> None:
    first, second = (place / "test" for place in places)
    first.mkdir(mode=0o755)
    assert make_runtime_folder("test") == str(second)
    assert runtime_folders("test") == [str(second)]
    first.rmdir()
    first.symlink_to(second)
    assert runtime_folders("test") == [str(second)], "a link may be another one's"
    first.unlink()
    first.mkdir(mode=0o700)
    places[0].chmod(0o777)
    assert runtime_folders("test") == [str(second)], "it could be replaced"
    places[0].chmod(0o1777)
    assert runtime_folders("test") == [str(first), str(second)]


def test_if_there_is_none_all_reasons_are_said(places: list[Path]) -> None:
    (places[0] / "test").write_text("")
    places[1].rmdir()
    with pytest.raises(StateError, match=r"first/test: it is not a folder; \S+second/test: No such file") as caught:
        make_runtime_folder("test")
    assert caught.value.exit_code == 74


@as_root
def test_one_of_another_user(places: list[Path]) -> None:
    (places[0] / "test").mkdir(mode=0o700)
    os.chown(places[0] / "test", NOBODY_UID, -1)
    assert make_runtime_folder("test") == str(places[1] / "test")


def test_the_environment_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    before = runtime_dir._places("test")
    for name in ("TMPDIR", "XDG_RUNTIME_DIR", "HOME"):
        monkeypatch.setenv(name, "/elsewhere")
    assert runtime_dir._places("test") == before
