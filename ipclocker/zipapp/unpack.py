"""The first run on a host: compile the built file's modules to a pack, and keep it for the next run.

Any number of first runs may happen at once. They queue for a lock on the cache folder; the first one makes
the pack, the others find it. A pack is written under another name, flushed and renamed: a run that is killed
meanwhile leaves a file that nobody reads. A run that has no place for a pack, or would have to wait too long,
uses its own from memory.
"""

from __future__ import annotations

import fcntl
import hashlib
import marshal
import os
import re
import time
import zipimport
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

LAUNCHER = "ipclocker/zipapp/launcher.py"
LONGEST_WAIT = 10.0  # seconds to wait for the run that is making the pack, which takes one or two
OUTDATED = 3600.0  # seconds that another build's pack is kept, so that two builds in use do not delete each other's


def obtain(launcher: ModuleType, archive: str, uid: int) -> Any:
    """Find or make the pack of the built file `archive`, and keep it for the next run if the host has a place for it.

    `launcher` is the module launcher.py, which runs as `__main__`: imported here, it would be loaded twice.
    """
    made = b""
    kept_in = None
    named = os.environ.get("IPCLOCKER_CACHE", "")
    if named.startswith("/"):
        with suppress(OSError):
            os.makedirs(named, 0o700, exist_ok=True)
    for folder in launcher.cache_folders(uid):
        try:
            with _locked(launcher, folder, uid):
                kept = launcher.load(folder, uid)
                if kept:
                    return kept
                made = made or compile_all(archive, launcher.BUILD)
                _keep(made, folder, launcher.pack_name())
                kept_in = folder
                break
        except TimeoutError:
            break
        except OSError:  # no such place, not ours, full, read-only
            continue
    pack = launcher.Pack(made or compile_all(archive, launcher.BUILD))
    pack.folder = kept_in
    return pack


def compile_all(archive: str, build: str) -> bytes:
    """Compile all modules of `archive` for this interpreter. Raises ValueError if the file is not as it was built.

    Without that check, a file that is replaced while it is read would give a mixture that is used from then on.
    """
    importer = zipimport.zipimporter(archive)
    paths = importer.get_data("modules.txt").decode().split()
    sources = {path: importer.get_data(os.path.join("site-packages", path)) for path in paths}
    if build_of(sources) != build:
        raise ValueError("its modules are not those it was built with")
    index, codes, end = {}, [], 0
    for path, source in sources.items():
        name = path[: -len(".py")].replace("/", ".")
        is_package = name.endswith(".__init__")
        code = marshal.dumps(compile(source, path, "exec", dont_inherit=True, optimize=0))
        start, end = end, end + len(code)
        index[name[: -len(".__init__")] if is_package else name] = (is_package, start, end)
        codes.append(code)
    index[""] = (False, 0, end)
    head = marshal.dumps(index)
    return b"".join([len(head).to_bytes(4, "little"), head, *codes])


def build_of(sources: dict[str, bytes]) -> str:
    """Make a digest of all modules (by their paths), without the line of the launcher that holds it."""
    digest = hashlib.sha256()
    for path in sorted(sources):
        source = sources[path]
        if path == LAUNCHER:
            source = re.sub(rb'^BUILD = ".*?"', b"", source, flags=re.MULTILINE)
        digest.update(b"%s %d " % (path.encode(), len(source)))
        digest.update(source)
    return digest.hexdigest()[:20]


@contextmanager
def _locked(launcher: ModuleType, folder: str, uid: int) -> Iterator[None]:
    """Make `folder` if it is missing, and hold the lock on it.

    Raises OSError if there can be no such folder that is the user's alone, TimeoutError if another run holds
    the lock for too long.
    """
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
        os.chmod(folder, 0o700)  # whatever the umask
    if not launcher.is_private(folder, uid):
        raise PermissionError(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Take the lock; polling, because an alarm would change what the command to be run inherits."""
    deadline = time.monotonic() + LONGEST_WAIT
    pause = 0.005
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError from None
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _keep(pack: bytes, folder: str, name: str) -> None:
    """Write the pack, and remove what older builds and killed runs left. Raises OSError."""
    temporary = os.path.join(folder, "new-" + os.urandom(8).hex())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(pack)
            file.flush()
            os.fsync(descriptor)  # some file systems report a full disk only now
        os.rename(temporary, os.path.join(folder, name))
    except OSError:
        os.unlink(temporary)
        raise
    _remove_outdated(folder, name)


def _remove_outdated(folder: str, current: str) -> None:
    now = time.time()
    for entry in os.scandir(folder):
        with suppress(OSError):  # another run was quicker
            if entry.name != current and now - entry.stat(follow_symlinks=False).st_mtime > OUTDATED:
                os.unlink(entry.path)
