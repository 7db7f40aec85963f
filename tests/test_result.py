import sys
from pathlib import Path

import pytest

import unflat
from unflat.device import choose_device
from unflat.errors import UserError
from unflat.result import check_formats, free_places, in_words, scene_file


@pytest.mark.parametrize(
    ("confidence", "words"),
    [
        (None, "not known"),
        (0.18, "0.18 (low)"),
        (0.3, "0.30 (middling)"),
        (0.59, "0.59 (middling)"),
        (0.6, "0.60 (fine)"),
    ],
)
def test_confidence_in_words(confidence: float | None, words: str) -> None:
    assert in_words(confidence) == words


def test_a_file_that_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "mesh.glb").write_bytes(b"old")
    with pytest.raises(UserError, match=r"mesh\.glb: is there already; add --force .* --out\.$"):
        free_places(tmp_path, ["webp", "glb"])
    places = free_places(tmp_path, ["webp", "glb"], video="render-spiral", force=True)
    assert places == [tmp_path / "render-spiral.webp", tmp_path / "mesh.glb"]


def test_a_missing_extra_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    check_formats(["glb", "webp"])
    with pytest.raises(UserError, match=r'^--format mp4 needs the video extra: pip install "unfla'):
        check_formats(["glb", "mp4"])


def test_a_scene_is_found_by_its_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no scene.safetensors; give a result folder"):
        scene_file(tmp_path)
    (tmp_path / "scene.safetensors").write_bytes(b"")
    assert scene_file(tmp_path) == scene_file(tmp_path / "scene.safetensors")


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(UserError, match=r"^--device cuda: no CUDA device was found; use --device"):
        choose_device("cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_device("auto") == "cuda"


def test_the_package_hands_out_its_names() -> None:
    assert unflat.reconstruct.__name__ == "reconstruct_picture"
    assert unflat.Scene.__module__ == "unflat.scene"
    assert set(dir(unflat)) >= {"Scene", "UserError", "reconstruct"}
    with pytest.raises(AttributeError, match="no attribute 'reconstrcut'"):
        _ = unflat.reconstrcut  # pyright: ignore[reportAttributeAccessIssue]
