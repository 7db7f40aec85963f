"""Files and folders that are whole or absent: written beside their place, then moved there.

with atomic_path("cat/mesh.glb") as temporary:
    temporary.write_bytes(data)
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unflat.errors import UserError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or write somewhere else",
    errno.EDQUOT: "the disk quota is used up; free some space or write somewhere else",
    errno.EFBIG: "the file grew larger than this disk allows; write somewhere else",
    errno.EACCES: "no permission to write here; choose another place",
    errno.EPERM: "no permission to write here; choose another place",
    errno.EROFS: "this disk is read-only; choose another place",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another place",
    errno.EEXIST: "a part of this path is a file, not a folder; choose another place",
    errno.EISDIR: "this is a folder; give the name of a file",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}

_UMASK = os.umask(0)
os.umask(_UMASK)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary neighbour of ``path`` with its suffix, moved to ``path`` when the block ends.

    Missing parent folders are made. If the block raises (Ctrl-C too), the temporary file is
    removed and whatever stood at ``path`` stays as it was.

    Raises:
        UserError: the disk is full, or ``path`` can not be written.
    """
    target = Path(path)
    temporary = target.with_name(
        f".{target.stem[:40]}.{secrets.token_hex(4)}.partial{target.suffix}"
    )
    try:
        with _sentences(target, temporary):
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a folder", str(target))
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _open_to_others(temporary)
            temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(
    path: str | os.PathLike[str], force: bool = False, *, shown_by: str = "report.json"
) -> Iterator[Path]:
    """An empty ``name.partial/`` beside ``path``, moved to ``path`` when the block ends.

    What a killed run left in ``name.partial/`` is removed first. If the block raises (Ctrl-C
    too), the partial folder is removed and an older result stays as it was.

    Args:
        path: the folder to make; an empty folder there counts as absent.
        force: replace an older result.
        shown_by: the file by which a folder is known as a result: ``force`` replaces no other
            folder, so that ``--out ~ --force`` costs nobody their files.

    Raises:
        UserError: ``path`` holds something already, the disk is full, or it can not be written.
    """
    target = Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow a link)
    partial = target.with_name(f"{target.name}.partial")
    _refuse_folder(target, path, force, shown_by)
    try:
        with _sentences(Path(path), partial):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            for file in partial.rglob("*"):
                _open_to_others(file)
            _move_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _open_to_others(path: Path) -> None:
    """The permissions of new files; some libraries keep what they write to the owner."""
    if path.is_file():
        path.chmod(0o666 & ~_UMASK)


def _refuse_folder(target: Path, path: str | os.PathLike[str], force: bool, shown_by: str) -> None:
    shown = str(Path(path))
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{shown}: is a file; choose another --out.")
    if not any(target.iterdir()):
        return
    if not force:
        raise UserError(
            f"{shown}/: already holds a result; add --force to replace it or choose --out."
        )
    if not (target / shown_by).exists():
        raise UserError(
            f"{shown}/: holds no {shown_by}, so it is no result that --force may replace; "
            "choose another --out."
        )


def _move_folder(partial: Path, target: Path) -> None:
    """Put the whole folder in place; an older one is out of the way for two renames only."""
    if not target.exists():
        partial.rename(target)
        return
    older = target.with_name(f".{target.name}.{secrets.token_hex(4)}.replaced")
    target.rename(older)
    try:
        partial.rename(target)
    except OSError:
        older.rename(target)
        raise
    shutil.rmtree(older, ignore_errors=True)


@contextmanager
def _sentences(target: Path, temporary: Path) -> Iterator[None]:
    """Turn what the disk refuses into a sentence; errors about other files pass unchanged."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _REASONS.get(_errno_of(error))
        named = getattr(error, "filename", None)
        if reason is None or not _is_ours(named, target, temporary):
            raise
        raise UserError(f"{target}: {reason}.") from error


def _errno_of(error: Exception) -> int:
    """Errno of an OSError, or of a Rust library's message ("... (os error 28)"); else -1."""
    if isinstance(error, OSError):
        return error.errno if error.errno is not None else -1
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found.group(1)) if found else -1


def _is_ours(named: object, target: Path, temporary: Path) -> bool:
    if not isinstance(named, str | bytes | os.PathLike):
        return True
    path = Path(os.path.abspath(os.fsdecode(named)))  # noqa: PTH100  (see atomic_folder)
    places = [Path(os.path.abspath(place)) for place in (target, temporary)]  # noqa: PTH100
    return any(path == place or path in place.parents or place in path.parents for place in places)
