"""Draws critics.png: the tokens' own scenes by two models, for comparison.

    python docs/pictures/critics.py GALLERY vq3d-small runs/critics/model.safetensors

A row for each photo: the photo at 64 pixels; then for each model the canonical view and the view
turned by 15 degrees, as its tokens have them.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unflat.data.prepare import prepare_picture
from unflat.export.picture import to_uint8
from unflat.geometry.camera import Camera
from unflat.geometry.trajectory import turn_about_pivot
from unflat.systems.vq3d import load
from unflat.systems.vq3d.pipeline import reconstruct_picture

PHOTOS = ("duck", "robot", "boots", "sneaker")
ANGLE_DEG = 15.0
SIDE, SHOWN = 64, 192


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gallery", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "critics.png")
    options = parser.parse_args()
    models = [load(model) for model in options.models]
    rows = []
    for name in PHOTOS:
        photo = options.gallery / f"{name}.jpg"
        row = [prepare_picture(photo, SIDE).model_image]
        for model in models:
            scene = reconstruct_picture(photo, model=model, detail=False)
            angles = torch.tensor([0.0, math.radians(ANGLE_DEG)])
            poses = turn_about_pivot(angles, torch.zeros(2), scene.pivot_depth)
            half = scene.camera.intrinsics.expand(2, 4)
            views = scene.render(Camera(camera_to_world=poses, intrinsics=half), (SIDE, SIDE))
            row += list(views.rgb.clamp(0, 1))
        rows.append(np.concatenate([enlarged(picture) for picture in row], axis=1))
    Image.fromarray(np.concatenate(rows)).save(options.out)


def enlarged(picture: torch.Tensor) -> np.ndarray:
    """Pixels (height, width, 3) of a picture, each shown as a square."""
    pixels = Image.fromarray(to_uint8(picture))
    return np.asarray(pixels.resize((SHOWN, SHOWN), Image.Resampling.NEAREST))


if __name__ == "__main__":
    main()
