import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unflat.cli.main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder with a picture, its map, another shape's map and a flat one."""
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").resize((90, 80)).convert("RGB").save("cat.png")
    Image.new("RGB", (90, 80)).save("dog.png")
    rising = np.tile(np.arange(45, dtype=np.float32), (40, 1))
    np.save("map.npy", rising)
    np.save("wide.npy", np.tile(np.arange(80, dtype=np.float32), (40, 1)))
    np.save("flat.npy", np.ones((40, 45), np.float32))
    np.save("holes.npy", np.full((40, 45), np.nan, np.float32))
    Image.fromarray((rising * 1400).astype(np.uint16)).save("map16.png")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--depth", "lost.npy"], "lost.npy: there is no such file; check the spelling."),
        (["--depth", "flat.npy"], "flat.npy: the map is the same everywhere"),
        (["--depth", "holes.npy"], "holes.npy: holds NaN; fill its holes first"),
        (["--depth", "wide.npy"], "wide.npy: its disparity is 80x40 but the picture 90x80"),
        (["--depth", "map.exr"], "map.exr: there is no such file or folder; give a path, or a"),
        (["--depth", "vq3d-small"], "vq3d-small: is a model of vq3d, which is no depth model"),
        (["--depth", "map.npy", "--mode", "tokens"], "--depth: is of the visible surface, which"),
        (["--depth-from", "depth"], "--depth-from: tells of --depth, which is not given; drop"),
        (["dog.png", "--depth", "map.npy"], "--depth map.npy: is the map of one picture, but 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_depth_that_cannot_be_used_is_one_sentence(
    folder: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    before = sorted(folder.rglob("*"))
    assert main(["reconstruct", "cat.png", *arguments, "--model", str(tiny_model), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(sentence), said
    assert said.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("file", ["map.npy", "map16.png"])
def test_a_photo_with_its_map_becomes_a_folder(folder: Path, tiny_model: Path, file: str) -> None:
    arguments = ["--depth", file, "--frames", "2", "--size", "24", "--quiet"]
    assert main(["reconstruct", "cat.png", *arguments, "--model", str(tiny_model)]) == 0
    report = json.loads((folder / "cat/report.json").read_text())
    assert report["settings"]["depth"] == file
    assert "depth" in report["seconds"]
    assert -1 <= report["figures"]["depth_correlation"] <= 1
    assert (folder / "cat/viewer.html").is_file()
