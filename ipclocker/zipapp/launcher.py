"""The launcher, the first code that runs on a host: the built file's own `__main__`, in front of shiv's.

The built file is a zip archive, and its modules are sources. Compiling them at each start would cost a
hundred milliseconds, so their bytecode is kept on the host as a *pack*: one file with all modules of one
build for one interpreter version. A pack is there or it is not, never half. It is mapped into memory at the
start, and no name on disk is needed after that: the pack may be deleted and the built file replaced while a
daemon runs, and no lock is needed to clean up.

The rule that keeps this safe: a pack is read from a folder only if nobody but root and this user can change
that folder or its path. Where there is no such pack, `unpack` makes one.

This file is compiled at every start and has to parse on Python 3.6, to say there what is wrong: it stays
short, imports next to nothing that is not loaded by then, and has newer annotations in quotes.
"""

import gc
import marshal
import mmap
import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn

BUILD = "unbuilt"  # the build puts here a digest of all that is in the file

NOT_OTHERS_TO_WRITE = 0o022
STICKY = 0o1000  # on a folder: others may add files, but not rename or delete ours
KIND, FOLDER, FILE = 0o170000, 0o040000, 0o100000


class Pack:
    """The modules of one build as bytecode, in one buffer; Python's import system asks it for them (sys.meta_path).

    The buffer holds 4 bytes, the length of the index; the index, which maps a module's name to (is it a
    package, start, end), and "" to (False, 0, end of all); then the modules, each marshalled. Raises
    ValueError, TypeError or EOFError if the buffer is not whole.
    """

    def __init__(self, buffer: "bytes | mmap.mmap") -> None:
        view = memoryview(buffer)
        head = 4 + int.from_bytes(view[:4], "little")
        self.index = marshal.loads(view[4:head])
        self.codes = view[head:]
        if self.index[""][2] != len(self.codes):
            raise ValueError("the pack was cut off")
        self.folder: str | None = None  # where it is kept on this host, if it is
        self.folders: list[str] = []  # where it could be kept, best first
        self.modules = ""  # what `__file__` begins with: the archive's folder, as if they came from there

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        if name not in self.index:
            return None
        return ModuleSpec(name, self, is_package=self.index[name][0])  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: "ModuleType") -> None:
        _, start, end = self.index[module.__name__]
        code = marshal.loads(self.codes[start:end])
        module.__file__ = os.path.join(self.modules, code.co_filename)
        exec(code, module.__dict__)


def pack_name() -> str:
    """Return the file name of this build's pack for this interpreter."""
    return f"{BUILD}-{sys.implementation.cache_tag}-{MAGIC_NUMBER.hex()}"


def cache_folders(uid: int) -> "list[str]":
    """List the folders that may hold this user's pack, best first: local to the host and, if possible, lasting.

    A session's own /run/user comes late, because it ends with the last login: a job that logs in each minute
    would make its pack each minute. TMPDIR does not count.
    """
    places = [os.environ.get("IPCLOCKER_CACHE", ""), "/var/tmp", f"/run/user/{uid}", "/tmp"]
    if uid == 0:
        places.insert(1, "/var/cache")
    return [os.path.join(place, f"ipclocker-{uid}") for place in places if place.startswith("/")]


def is_private(folder: str, uid: int) -> bool:
    """Return True if `folder` is the user's own, and nobody but the user and root can change it or its path.

    Raises OSError if it is not there.
    """
    parent, name = os.path.split(folder)
    path = os.path.join(os.path.realpath(parent), name)  # `name` itself must not be a link: it may be another's
    stat = os.lstat(path)
    if stat.st_uid != uid or stat.st_mode & (KIND | NOT_OTHERS_TO_WRITE) != FOLDER:
        return False
    while path != "/":
        path = os.path.dirname(path)
        stat = os.lstat(path)
        if stat.st_uid not in (0, uid) or stat.st_mode & KIND != FOLDER:
            return False
        if stat.st_mode & NOT_OTHERS_TO_WRITE and not stat.st_mode & STICKY:
            return False
    return True


def load(folder: str, uid: int) -> "Pack | None":
    """Load the pack in `folder`; None if there is none that is whole and surely ours."""
    try:
        if not is_private(folder, uid):
            return None
        descriptor = os.open(os.path.join(folder, pack_name()), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        stat = os.fstat(descriptor)
        if stat.st_uid != uid or stat.st_mode & (KIND | NOT_OTHERS_TO_WRITE) != FILE:
            return None
        pack = Pack(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))  # shared by all who run; stays if deleted
        pack.folder = folder
        return pack
    except (OSError, EOFError, ValueError, TypeError):
        return None
    finally:
        os.close(descriptor)


def use_right_interpreter() -> None:
    """Start again on another interpreter if this one is too old, or isolated if it has looked outside.

    The built file's first line asks for isolation (-I: no environment, no current folder, no user's folder;
    -S: no site folder), and for text that is UTF-8 under any locale (-X utf8); `python3 ipclocker` does not.
    """
    if sys.version_info < (3, 9):
        other = os.environ.get("IPCLOCKER_PYTHON")
        # The mark keeps an IPCLOCKER_PYTHON that is too old itself from starting itself for ever.
        if other and "ipclocker" not in sys._xoptions:
            try:
                os.execvp(other, [other, "-ISXutf8", "-X", "ipclocker", *sys.argv])
            except OSError as error:
                fail(69, f"IPCLOCKER_PYTHON={other} can't be run: {error.strerror}")
        fail(
            69,
            f"Python {sys.version_info[0]}.{sys.version_info[1]} is too old, 3.9 or newer is needed: set "
            f"IPCLOCKER_PYTHON=/path/to/python3.9, or run /path/to/python3.9 {sys.argv[0]} ...",
        )
    if not (sys.flags.isolated and sys.flags.no_site) and sys.executable:
        os.execv(sys.executable, [sys.executable, "-ISXutf8", *sys.argv])


def prepare() -> None:
    """Make the modules of this file importable: from the pack; everything else comes from the standard library."""
    # Starting makes many objects and drops none; looking for garbage after each 700 of them costs 2 ms.
    gc.set_threshold(20000, 10, 10)
    archive = os.path.abspath(sys.path.pop(0))
    modules = os.path.join(archive, "site-packages")
    uid = os.geteuid()
    folders = cache_folders(uid)
    if os.environ.get("IPCLOCKER_CACHE"):
        del folders[1:]  # a pack belongs there even if there is one elsewhere; `unpack` sees whether that can be
    pack = next(filter(None, (load(folder, uid) for folder in folders)), None)
    if pack is None:
        sys.path.insert(0, modules)
        from ipclocker.zipapp.unpack import obtain

        sys.path.remove(modules)
        pack = obtain(sys.modules[__name__], archive, uid)
    pack.modules = modules
    pack.folders = folders
    sys.meta_path.insert(0, pack)


def fail(code: int, message: str) -> "NoReturn":
    """Print in one line what is wrong, and end the process."""
    try:
        os.write(2, f"ipclocker: {message}\n".encode("utf-8", "replace"))
    finally:
        os._exit(code)


def start() -> None:
    """Run the tool that was asked for, from its pack."""
    try:
        use_right_interpreter()
        prepare()
        from ipclocker.zipapp.exit import run_and_exit
    except OSError as error:
        fail(69, f"{error.filename or sys.argv[0]}: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - a file that was cut off or is being replaced fails in any way
        fail(70, f"{sys.argv[0]} is damaged, copy it anew ({type(error).__name__}: {error})")
    run_and_exit(_run_tool)


def _run_tool() -> None:
    from ipclocker.__main__ import main

    main()


if __name__ == "__main__":
    try:
        start()
    except KeyboardInterrupt:  # before the tool was ready for it: end as any program does
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
