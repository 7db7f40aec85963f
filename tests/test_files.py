"""Files are whole or absent, and refusals are sentences."""

import errno
import os
from pathlib import Path

import pytest

from unflat.errors import UserError
from unflat.files import atomic_folder, atomic_path


def half_a_file(path: Path, error: BaseException) -> None:
    """Starts a file and fails."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def half_a_folder(path: Path, error: BaseException, force: bool = False) -> None:
    """Starts a folder and fails."""
    with atomic_folder(path, force) as folder:
        (folder / "report.json").write_text("half")
        raise error


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_only_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "cat.png"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == target.parent
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["cat.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_block_leaves_the_older_file(tmp_path, error):
    target = tmp_path / "cat.png"
    target.write_bytes(b"old")
    with pytest.raises(error):
        half_a_file(target, error())
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["cat.png"]


def test_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"cat\.png: the disk is full; free some space"):
        half_a_file(tmp_path / "cat.png", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_told_by_the_system_itself(tmp_path):
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(UserError, match="the disk is full"),
        atomic_path(tmp_path / "a.bin"),
    ):
        full.write(b"x")


def test_full_disk_told_by_a_rust_library(tmp_path):
    error = RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(UserError, match="the disk is full"):
        half_a_file(tmp_path / "a.bin", error)


def test_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="a part of this path is a file"):
        half_a_file(tmp_path / "file" / "cat.png", AssertionError())
    with pytest.raises(UserError, match="this is a folder; give the name of a file"):
        half_a_file(tmp_path, AssertionError())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="no permission to write here"):
        half_a_file(tmp_path / "cat.png", AssertionError())
    tmp_path.chmod(0o700)


def test_errors_about_other_files_pass_unchanged(tmp_path):
    with pytest.raises(PermissionError), atomic_path(tmp_path / "cat.png"):
        raise PermissionError(errno.EACCES, "denied", "/elsewhere/input.jpg")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "cat.png"):
        Path("/elsewhere/input.jpg").read_bytes()


def test_folder_appears_whole(tmp_path):
    with atomic_folder(tmp_path / "cat") as folder:
        assert folder == tmp_path / "cat.partial"
        (folder / "report.json").write_text("{}")
        assert not (tmp_path / "cat").exists()
    assert names(tmp_path) == ["cat"]
    assert names(tmp_path / "cat") == ["report.json"]


def test_folder_refuses_then_replaces_with_force(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for word in ("first", "second"):
        with atomic_folder("cat", force=word == "second") as folder:
            (folder / "report.json").write_text(word)
            (folder / word).touch()
        if word == "first":
            with pytest.raises(UserError) as caught, atomic_folder("cat"):
                pass
            assert str(caught.value) == (
                "cat/: already holds a result; add --force to replace it or choose --out."
            )
    assert names(tmp_path) == ["cat"]
    assert names(tmp_path / "cat") == ["report.json", "second"]


def test_force_replaces_nothing_that_is_no_result(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"no result that --force may replace"):
        half_a_folder(tmp_path / "home", AssertionError(), force=True)
    assert names(tmp_path / "home") == ["letter.txt"]
    (tmp_path / "plain").write_text("x")
    with pytest.raises(UserError, match="is a file"), atomic_folder(tmp_path / "plain"):
        pass


def test_failed_folder_leaves_the_older_result(tmp_path):
    with atomic_folder(tmp_path / "cat") as folder:
        (folder / "report.json").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        half_a_folder(tmp_path / "cat", KeyboardInterrupt(), force=True)
    assert names(tmp_path) == ["cat"]
    assert (tmp_path / "cat" / "report.json").read_text() == "old"


def test_folder_starts_empty_after_a_killed_run_and_takes_an_empty_place(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat.partial").mkdir()
    (tmp_path / "cat.partial" / "stale").touch()
    with atomic_folder(tmp_path / "cat") as folder:
        assert names(folder) == []
        (folder / "new").touch()
    assert names(tmp_path / "cat") == ["new"]


def test_full_disk_in_a_folder_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="cat: the disk is full"):
        half_a_folder(tmp_path / "cat", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert names(tmp_path) == []


def test_others_may_read_what_a_library_kept_to_its_owner(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    usual = (tmp_path / "usual").stat().st_mode
    with atomic_path(tmp_path / "one") as temporary:
        temporary.write_bytes(b"1")
        temporary.chmod(0o600)
    with atomic_folder(tmp_path / "many") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "two").write_bytes(b"2")
        (folder / "deep" / "two").chmod(0o600)
    assert (tmp_path / "one").stat().st_mode == usual
    assert (tmp_path / "many" / "deep" / "two").stat().st_mode == usual
