"""Things put into a scene, and the way from one scene to another, as contact sheets.

    python docs/pictures/edit.py DATA --model vq3d-small

DATA holds gallery/ and objects-val-meshes.tar. Writes edit.jpg (where a place is; a tractor that
stands on a rock; one behind it; the duck of another photo) and interpolate.jpg (three ways from
the duck to the boot) beside this file.
"""

import argparse
import math
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional

from unflat.data import prepare_picture, read_object_mesh
from unflat.export import colorize_disparity, contact_sheet, to_uint8
from unflat.geometry import Placement
from unflat.geometry.trajectory import turn_about_pivot
from unflat.systems.vq3d import load
from unflat.systems.vq3d.interpolate import encode_ends, planes_between
from unflat.systems.vq3d.pipeline import reconstruct_picture

TRACTOR = "27bf1cfafe602ef14c3ddb587abefb68.glb"  # Quaternius, CC0 1.0
ROOM, GUEST, OTHER = "bear.jpg", "duck.jpg", "boot.jpg"
CELL = 200
ANGLE = math.radians(12)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="vq3d-small")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    gallery = options.data / "gallery"
    model = load(options.model)
    room = reconstruct_picture(gallery / ROOM, model=model)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(options.data / "objects-val-meshes.tar") as tar:
            tar.extract(TRACTOR, folder, filter="data")
        tractor = read_object_mesh(Path(folder) / TRACTOR)
    guest = reconstruct_picture(gallery / GUEST, model=model)
    x, y = -0.2, -0.75
    stands = Placement(
        x=x, y=y, nearness=room.nearness_at(x, y), size=0.4, turn=math.radians(40), stands=True
    )
    behind = Placement(x=0.55, y=0.0, nearness=0.28, size=0.4, turn=math.radians(-60))
    on_top = Placement(x=0.55, y=-0.3, nearness=0.62, size=0.35)
    scenes = room.insert(tractor, stands), room.insert(tractor, behind), room.insert(guest, on_top)
    rows = [[where(room), depth_of(room), *views(scenes[0])]]
    rows += [[shown(scene.photo), depth_of(scene), *views(scene)] for scene in scenes[1:]]
    save(rows, options.out / "edit.jpg")
    pictures = [prepare_picture(gallery / name, model.config.resolution) for name in (GUEST, OTHER)]
    ends = encode_ends(model, torch.stack([one.model_image for one in pictures]))
    rows = []
    for way in ("latents", "planes", "tokens"):
        fields = [model.field(planes_between(model, ends, n / 4, way)) for n in range(5)]
        rows.append([shown(front(field, room)) for field in fields])
    save(rows, options.out / "interpolate.jpg", 150)


def front(field, like):
    """The canonical view of a field."""
    scene = type(like)(field, like.header)
    return scene.render(size=(CELL, CELL)).rgb[0]


def views(scene):
    """From the front, the left and the right."""
    layered = scene.layered((2 * CELL, 2 * CELL))
    found = []
    for angle in (0.0, -ANGLE, ANGLE):
        pose = turn_about_pivot(torch.tensor([angle]), torch.zeros(1), scene.pivot_depth)
        found.append(shown(layered.view(replace(scene.camera, camera_to_world=pose))))
    return found


def depth_of(scene):
    layer = scene.layers((CELL, CELL))[0]
    return to_uint8(colorize_disparity(1 / layer.depth))


def where(scene):
    """The photo with the lines of X and Y, and what is seen where they cross as Z."""
    picture = Image.fromarray(shown(scene.photo))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    for value in (-0.5, 0.0, 0.5):
        at = (value + 1) / 2 * CELL
        draw.line([(at, 0), (at, CELL)], fill=(255, 255, 255))
        draw.line([(0, CELL - at), (CELL, CELL - at)], fill=(255, 255, 255))
        label(draw, (at + 2, 2), f"X {value:g}", font)
        label(draw, (2, CELL - at + 1), f"Y {value:g}", font)
    for x in (-0.5, 0.0, 0.5):
        place = ((x + 1) / 2 * CELL + 2, 0.75 * CELL + 12)
        label(draw, place, f"Z {scene.nearness_at(x, -0.5):.2f}", font)
    return np.asarray(picture)


def label(draw, place, text, font):
    draw.text(place, text, fill=(255, 255, 120), font=font, stroke_width=2, stroke_fill=(0, 0, 0))


def shown(picture):
    return to_uint8(functional.interpolate(picture[None], (CELL, CELL), mode="area")[0])


def save(rows, path, cell=CELL):
    sheet = Image.fromarray(contact_sheet([one for row in rows for one in row], len(rows[0])))
    share = cell / CELL
    sheet.resize((round(sheet.width * share), round(sheet.height * share))).save(path, quality=82)


if __name__ == "__main__":
    main()
