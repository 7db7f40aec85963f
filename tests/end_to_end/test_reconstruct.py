import json
from pathlib import Path

import pytest
from command import Run, draw
from PIL import Image

QUICK = ("--frames", "2", "--size", "24")


def test_a_photo_becomes_a_folder(unflat: Run, photo: Path, tiny_model: Path) -> None:
    done = unflat("reconstruct", photo.name, "--model", tiny_model, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout
    folder = photo.parent / "cat"
    names = {path.name for path in folder.iterdir()}
    video = "orbit.mp4" if "orbit.mp4" in names else "orbit.webp"
    assert names == {
        *("input.png", "scene.safetensors", "preview.png", "viewer.html", "report.json"),
        video,
    }
    with Image.open(folder / "preview.png") as preview:
        assert preview.width == 1024
    report = json.loads((folder / "report.json").read_text())
    assert set(report["files"]) == names
    assert report["inputs"] == ["cat.png"]
    assert {"prepare", "scene", "render", "viewer"} <= set(report["seconds"])
    assert report["figures"]["canonical_psnr"] > 0
    assert 0 <= report["confidence"] <= 1
    assert report["seed"] == 0
    assert report["peak_memory_mib"]["process"] > 50
    assert report["licences"]["model"] == "Apache-2.0"
    assert {"unflat", "torch", "python"} <= set(report["versions"])
    last = done.stdout.strip().splitlines()[-1]
    assert last == "open cat/viewer.html to look around"

    again = unflat("reconstruct", photo.name, "--model", tiny_model, *QUICK)
    assert again.returncode == 2
    assert "scene" not in again.stdout, "refused before the work"
    assert again.stderr == (
        "cat/: already holds a result; add --force to replace it or choose --out.\n"
    )


def test_json_keeps_stdout_for_objects(unflat: Run, photo: Path, tiny_model: Path) -> None:
    arguments = ("--model", tiny_model, *QUICK, "--json", "--format", "glb,webp")
    done = unflat("reconstruct", photo.name, *arguments)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "report"
    assert "mesh.glb" in events[-1]["files"]
    assert "orbit.webp" in events[-1]["files"]
    assert "wrote cat/" in done.stderr
    assert (photo.parent / "cat" / "mesh.glb").read_bytes()[:4] == b"glTF"


def test_the_same_seed_gives_the_same_bytes(unflat: Run, photo: Path, tiny_model: Path) -> None:
    for out in ("a", "b"):
        arguments = ("--model", tiny_model, "--out", out, *QUICK, "--quiet")
        done = unflat("reconstruct", photo.name, *arguments)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    for name in ("scene.safetensors", "preview.png", "viewer.html"):
        first, second = (photo.parent / out / name for out in ("a", "b"))
        assert first.read_bytes() == second.read_bytes(), name


def test_a_folder_skips_counts_and_goes_on(unflat: Run, tmp_path: Path, tiny_model: Path) -> None:
    draw(tmp_path / "photos" / "cat.png")
    draw(tmp_path / "photos" / "sea" / "cat.png")
    (tmp_path / "photos" / "zero.jpg").write_bytes(b"")
    arguments = ("reconstruct", "photos", "--out", "rooms", "--model", tiny_model, *QUICK)
    done = unflat(*arguments)
    assert done.returncode == 3, done.stderr
    assert "2 new, 0 were there, 1 failed" in done.stdout
    rooms = tmp_path / "rooms"
    assert (rooms / "sea" / "cat" / "viewer.html").is_file()
    lines = [json.loads(line) for line in (rooms / "report.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["done", "done", "failed"]
    assert "zero.jpg: the file is empty" in lines[2]["reason"]

    (tmp_path / "photos" / "zero.jpg").unlink()
    before = (rooms / "cat" / "report.json").stat().st_mtime_ns
    again = unflat(*arguments)
    assert again.returncode == 0, again.stderr
    assert "0 new, 2 were there, 0 failed" in again.stdout
    assert (rooms / "cat" / "report.json").stat().st_mtime_ns == before


def test_a_dry_run_writes_nothing(unflat: Run, photo: Path, tiny_model: Path) -> None:
    done = unflat("reconstruct", photo.name, "--model", tiny_model, "--dry-run")
    assert done.returncode == 0
    assert "cat.png -> cat/" in done.stdout
    assert [path.name for path in photo.parent.iterdir()] == ["cat.png"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("cat.jgp", None, "cat.jgp: there is no such file; did you mean cat.png?"),
        ("notes.txt", b"no picture", "notes.txt: not a picture unflat can read (png, jpg,"),
        ("zero.png", b"", "zero.png: the file is empty; copy or download it again."),
        ("small.png", 32, "small.png: 32x32 is below the 64 pixels"),
    ],
)
def test_bad_pictures_get_a_sentence_and_leave_nothing(
    unflat: Run, photo: Path, tiny_model: Path, name: str, content: object, sentence: str
) -> None:
    path = photo.parent / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, int):
        draw(path, content)
    before = sorted(photo.parent.iterdir())
    done = unflat("reconstruct", name, "--model", tiny_model, "--quiet")
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)
    assert sorted(photo.parent.iterdir()) == before
