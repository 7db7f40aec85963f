"""Draws orbits.jpg: photos of the gallery turned by up to 15 degrees.

    python docs/pictures/orbits.py GALLERY              # the folder with the photos
    python docs/pictures/orbits.py GALLERY --out before.jpg     # at another commit, to compare

Every view is rendered at 512 pixels and shown at a third of that.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import unflat
from unflat.export.picture import to_uint8
from unflat.geometry.camera import Camera
from unflat.geometry.trajectory import turn_about_pivot

PHOTOS = ("duck", "robot", "temple-china", "wolf", "boots", "sneaker")
ANGLES_DEG = (-15.0, -7.5, 0.0, 7.5, 15.0)
SIDE, SHOWN = 512, 168


def row(photo: Path) -> np.ndarray:
    """Views of one photo side by side."""
    scene = unflat.reconstruct(photo)
    layers = scene.layered((SIDE, SIDE))
    angles = torch.tensor([math.radians(angle) for angle in ANGLES_DEG])
    views = []
    for pose in turn_about_pivot(angles, torch.zeros_like(angles), scene.pivot_depth):
        camera = Camera(camera_to_world=pose[None], intrinsics=scene.camera.intrinsics)
        view = Image.fromarray(to_uint8(layers.view(camera)))
        views.append(np.asarray(view.resize((SHOWN, SHOWN), Image.Resampling.LANCZOS)))
    return np.concatenate(views, axis=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gallery", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "orbits.jpg")
    options = parser.parse_args()
    rows = [row(options.gallery / f"{name}.jpg") for name in PHOTOS]
    Image.fromarray(np.concatenate(rows)).save(options.out, quality=76)


if __name__ == "__main__":
    main()
