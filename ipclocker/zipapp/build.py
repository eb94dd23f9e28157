"""Two steps of the build (see build.sh): collecting the modules for the one file, and finishing the file.

    python -m ipclocker.zipapp.build stage FOLDER   copies the package and its pinned distributions, for shiv to pack
    python -m ipclocker.zipapp.build finish FILE    puts the launcher in front of shiv's; equal inputs, equal bytes

Runs on the developer's machine only and is not in the built file.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import sys
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from .strip import strip_module
from .unpack import LAUNCHER, build_of

PROJECT = Path(__file__).resolve().parents[2]
NOT_ON_HOSTS = {"ipclocker/zipapp/build.py", "ipclocker/zipapp/strip.py"}
WITH_DOCSTRINGS = "ipclocker/cli/"  # which are texts of --help and of manual pages
# What pip leaves in a distribution's folder depends on who installed it, from where and how.
LEFT_BY_PIP = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
SHEBANG = b"#!/usr/bin/python3 -ISXutf8\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip archive can hold


def pinned() -> list[str]:
    """Return the names and versions ("click==8.1.8") that pyproject.toml pins for the built file."""
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")  # no tomllib before 3.11
    listed = text.partition("\ndependencies = [")[2].partition("]")[0]
    return [line.strip(' ",') for line in listed.splitlines() if "==" in line]


def stage(folder: Path) -> None:
    """Copy the package and its distributions to `folder`; only what the distributions' makers shipped."""
    for path in sorted((PROJECT / "ipclocker").rglob("*")):
        name = path.relative_to(PROJECT).as_posix()
        if path.is_file() and "__pycache__" not in path.parts and name not in NOT_ON_HOSTS:
            _copy(path, folder / name)
            if path.suffix == ".py" and name != LAUNCHER:
                source = strip_module(path.read_text(encoding="utf-8"), name.startswith(WITH_DOCSTRINGS))
                (folder / name).write_text(source, encoding="utf-8")
    for pin in pinned():
        name, _, version = pin.partition("==")
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"build: {pin} is not installed for {sys.executable}: run 'make .venv'")
        if installed.version != version:
            sys.exit(f"build: {name} {installed.version} is installed, {pin} is pinned: run 'make clean'")
        _stage_distribution(installed, folder)


def _stage_distribution(installed: Distribution, folder: Path) -> None:
    for file in installed.files or ():
        if file.name in LEFT_BY_PIP or file.suffix == ".pyc" or ".." in file.parts:
            continue
        path = Path(str(file.locate()))
        if file.suffix not in {".py", ".typed", ".txt", ".md", ""}:
            sys.exit(f"build: {file} is not pure Python, so it can't go to every host")
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
        if file.hash is None or file.hash.value != digest:
            sys.exit(f"build: {path} is not as its maker shipped it: run 'make clean'")
        _copy(path, folder / file)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def finish(path: Path) -> None:
    """Rewrite the shiv file `path` in place: the launcher in front, entries sorted, no times, no modes."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    modules = {
        name.partition("/")[2]: source
        for name, source in contents.items()
        if name.startswith("site-packages/") and name.endswith(".py")
    }
    contents["modules.txt"] = "\n".join(sorted(modules)).encode()
    launcher, found = re.subn(
        rb'^BUILD = ".*?"', b'BUILD = "%s"' % build_of(modules).encode(), modules[LAUNCHER], flags=re.M
    )
    if found != 1:
        sys.exit("build: launcher.py has no BUILD to be set")
    contents["__main__.py"] = contents[f"site-packages/{LAUNCHER}"] = launcher

    with path.open("wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w") as archive:
            for name in sorted(contents):
                info = zipfile.ZipInfo(name, EPOCH)
                info.create_system = 3  # modes are UNIX ones
                info.external_attr = 0o100644 << 16
                # The launcher is read at every start: stored, so that nothing has to be imported to read it.
                info.compress_type = zipfile.ZIP_STORED if name == "__main__.py" else zipfile.ZIP_DEFLATED
                archive.writestr(info, contents[name], compresslevel=9)
    path.chmod(0o755)


if __name__ == "__main__":
    {"stage": stage, "finish": finish}[sys.argv[1]](Path(sys.argv[2]))
