"""Gallery photographs and their orbits as contact sheets.

    python docs/pictures/gallery.py DATA/gallery --model vq3d-small

Writes gallery.jpg (photo, four views of an orbit of 12 degrees, disparity) and tokens.jpg (what
the tokens alone hold, at the model's 64 pixels) beside this file.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from unflat.export.picture import colorize_disparity
from unflat.systems.vq3d import load
from unflat.systems.vq3d.pipeline import reconstruct_picture

NAMES = ("duck", "temple-china", "boot", "dog", "candle", "car-toy")
TOKEN_NAMES = ("duck", "temple-china", "dog", "coffee")
SIDE = 512
SHOWN = 168


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="vq3d-small")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    model = load(options.model)
    rows = []
    for name in NAMES:
        scene = reconstruct_picture(options.folder / f"{name}.jpg", model=model)
        side = min(SIDE, *scene.size)
        views = scene.orbit("orbit", frames=8, size=(side, side)).images[[0, 1, 3, 5, 7]]
        depth = 1 / scene.depth((side, side))
        rows.append([*views, colorize_disparity(depth)])
    sheet(rows, options.out / "gallery.jpg")
    rows = []
    for name in TOKEN_NAMES:
        row = []
        for detail in (False, True):
            scene = reconstruct_picture(options.folder / f"{name}.jpg", model=model, detail=detail)
            size = (model.config.resolution,) * 2 if not detail else (SHOWN, SHOWN)
            row += list(scene.orbit("wiggle", frames=4, size=size, quality="field").images[[0, 1]])
        rows.append([row[2], row[0], row[1], row[3]])
    sheet(rows, options.out / "tokens.jpg")


def sheet(rows, path):
    lines = [np.concatenate([shown(picture) for picture in row], axis=1) for row in rows]
    Image.fromarray(np.concatenate(lines)).save(path, quality=82)


def shown(picture):
    tensor = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    mode = "area" if tensor.shape[-1] > SHOWN else "nearest"
    small = functional.interpolate(tensor, (SHOWN, SHOWN), mode=mode)
    return small[0].permute(1, 2, 0).round().byte().numpy()


if __name__ == "__main__":
    main()
