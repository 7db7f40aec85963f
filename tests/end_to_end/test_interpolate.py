import json
from pathlib import Path

import numpy as np
import pytest
from command import Run, draw
from PIL import Image

from unflat.scene import Scene

PAIRS = (("cat.png", "fog.png", "latents"), ("fog.png", "few.png", "tokens"))
QUICK = ("--frames", "2", "--size", "16", "--count", "3", "--format", "webp")


@pytest.mark.slow
def test_two_pictures_of_any_size_and_mode_become_a_row_of_scenes(
    unflat: Run, tmp_path: Path, tiny_model: Path
) -> None:
    grey = np.tile(np.linspace(0, 65535, 90), (70, 1)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "fog.png")
    draw(tmp_path / "cat.png")
    with Image.open(tmp_path / "cat.png") as picture:
        picture.resize((200, 80)).convert("P").save(tmp_path / "few.png")
    for first, second, way in PAIRS:
        done = unflat("interpolate", first, second, "--model", tiny_model, "--way", way, *QUICK)
        assert done.returncode == 0, done.stderr
        folder = tmp_path / f"{Path(first).stem}-to-{Path(second).stem}"
        names = {path.name for path in folder.iterdir()}
        scenes = {f"scene-0{number}.safetensors" for number in range(3)}
        assert names == {"strip.png", "front.webp", "orbit.webp", "report.json", *scenes}
        report = json.loads((folder / "report.json").read_text())
        assert set(report["files"]) == names
        assert report["settings"]["way"] == way
        with Image.open(folder / "strip.png") as strip:
            assert strip.width > 2 * strip.height
        middle = Scene.load(folder / "scene-01.safetensors")
        assert middle.header.settings["share"] == 0.5
    assert any("the centre 70x70 of 90x70" in note for note in report["settings"]["preprocessing"])

    again = unflat("interpolate", "fog.png", "few.png", "--model", tiny_model, *QUICK)
    assert again.returncode == 2
    assert again.stderr.startswith("fog-to-few/: already holds a result; add --force")
