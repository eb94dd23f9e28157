"""The note of how far etcd had come, and what it says of an etcd that has gone back."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ipclocker.errors import StateError
from ipclocker.lock.storage.etcd_note import EtcdGoneBack, EtcdNote, compare
from ipclocker.lock.storage.etcd_prefix import Mark

from ...support.site import as_root

BEFORE = Mark("77", 100, 50)


def test_what_was_noted_is_read(tmp_path: Path) -> None:
    note = EtcdNote(str(tmp_path / "made"), 1751, "farm/a/")
    assert note.read() is None
    note.write(BEFORE)
    note.write(BEFORE._replace(revision=101))
    assert EtcdNote(str(tmp_path / "made"), 1751, "farm/a/").read() == Mark("77", 101, 50)
    assert os.listdir(tmp_path / "made") == ["lockerd-1751-farm%2Fa%2F.etcd"]


def test_each_port_and_prefix_has_its_own(tmp_path: Path) -> None:
    EtcdNote(str(tmp_path), 1751, "a/").write(BEFORE)
    assert EtcdNote(str(tmp_path), 1752, "a/").read() is None
    assert EtcdNote(str(tmp_path), 1751, "b/").read() is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Mark("78", 200, 60), "its cluster id is 78, and was 77"),
        (Mark("77", 99, 50), "its revision is 99, and was 100"),
        (Mark("77", 101, 49), "its last token is 49, and was 50"),
    ],
)
def test_one_that_has_gone_back(found: Mark, said: str) -> None:
    with pytest.raises(EtcdGoneBack) as problem:
        compare(BEFORE, found, "etcd at http://h:2379, under x/")
    text = str(problem.value)
    assert text.startswith(f"etcd at http://h:2379, under x/ is not what it was ({said})")
    assert "--accept-restored" in text and "README" in text and "\n" not in text


@pytest.mark.parametrize("found", [BEFORE, Mark("77", 101, 50), Mark("77", 100, 51)])
def test_one_that_has_not(found: Mark) -> None:
    compare(BEFORE, found, "etcd")
    compare(None, found, "etcd")


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", '{"cluster": "1", "revision": "x", "last_token": 1}'])
def test_a_damaged_note_is_no_note_of_a_fresh_start(tmp_path: Path, text: str) -> None:
    note = EtcdNote(str(tmp_path), 1751, "a/")
    Path(note.path).write_text(text)
    with pytest.raises(StateError, match=f"{note.path} can't be read: write it again with .*--accept-restored"):
        note.read()
    note.write(BEFORE)
    assert note.read() == BEFORE


@as_root
def test_a_lockerd_of_another_user_can_read_what_root_has_written(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        note = EtcdNote(str(tmp_path), 1751, "a/")
        note.write(BEFORE)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(os.stat(note.path).st_mode) == 0o644


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"can't be made: Not a directory .*--state-dir"):
        EtcdNote(str(tmp_path / "file" / "x"), 1751, "a/")
    note = EtcdNote(str(tmp_path / "x"), 1751, "a/")
    (tmp_path / "x").rmdir()
    with pytest.raises(StateError, match="can't be written: No such file"):
        note.write(BEFORE)
