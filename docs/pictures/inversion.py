"""What inversion makes of held-out renders and of a photograph, as contact sheets.

    python docs/pictures/inversion.py DATA
    python docs/pictures/inversion.py DATA --photos       # figures of two photographs, no picture

DATA holds cars-srn.tar, planes-srn.tar, gallery/ and photos-val.tar. Writes inversion-cars.jpg and
inversion-planes.jpg (rows: held-out pictures, drawn by seed; columns: the picture, the canonical
map, the guess, 10 steps, 30 steps, two other sides, normals) and inversion-photo.jpg (a toy car,
whose outline was drawn by hand below) beside this file.
"""

import argparse
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from unflat.data import open_picture
from unflat.data.posed_objects import PosedObjects
from unflat.export import colorize_normals, contact_sheet
from unflat.geometry import turn_around
from unflat.hub import find
from unflat.losses import FeatureDistance, frozen
from unflat.systems.features import load as load_features
from unflat.systems.inversion.fit import steps_of
from unflat.systems.inversion.invert import Inverted, invert
from unflat.systems.inversion.pipeline import InversionModel, load

CELL = 128
ROWS = 6
SIDES = (-1.9, 1.9)  # radians
TOY = (
    *((200, 790), (205, 730), (245, 685), (280, 610), (330, 530), (375, 480), (362, 430)),
    *((360, 390), (385, 355), (440, 343), (495, 360), (522, 400), (560, 402), (615, 425)),
    *((675, 440), (678, 482), (715, 540), (735, 620), (760, 650), (762, 740), (735, 790)),
    *((712, 795), (705, 880), (670, 940), (610, 955), (570, 920), (480, 935), (400, 930)),
    *((310, 905), (280, 880), (230, 865), (205, 830)),
)
"""Outline of gallery/car-toy.jpg, in 1024ths of its sides; without the antenna."""
PHOTOS = {
    "000054": (
        *((2, 118), (20, 92), (60, 66), (110, 58), (170, 60), (190, 72), (203, 100)),
        *((203, 135), (190, 142), (165, 140), (150, 128), (45, 130), (30, 142), (8, 138)),
    ),
    "000370": (
        *((20, 18), (60, 8), (150, 10), (185, 20), (200, 60), (203, 150), (195, 185)),
        *((165, 190), (150, 172), (60, 175), (45, 200), (20, 195), (3, 170), (2, 90)),
    ),
}
"""Outlines in photos-val.tar, in 205ths."""


def main() -> None:
    parser = argparse.ArgumentParser(description="What inversion makes of pictures.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--photos", action="store_true")
    options = parser.parse_args()
    distance = frozen(FeatureDistance(load_features(find("unflat-features"))))
    cars = load(find("find-cars"))
    if options.photos:
        with tarfile.open(options.data / "photos-val.tar") as tar:
            for name, outline in PHOTOS.items():
                stream = tar.extractfile(f"{name}.webp")
                assert stream is not None
                with Image.open(io.BytesIO(stream.read())) as opened:
                    picture = opened.convert("RGB")
                found = invert(cars, *outlined(picture, outline, 205), distance, steps_of(10))
                print(name, json.dumps({**found.after, "confidence": found.confidence}))
        return
    toy = open_picture(options.data / "gallery" / "car-toy.jpg").convert("RGB")
    row, found = cells(cars, *outlined(toy, TOY, 1024), distance)
    print("toy", json.dumps({**found.after, "confidence": found.confidence}))
    save([row], options.out / "inversion-photo.jpg")
    for name, model in (("cars", cars), ("planes", load(find("find-planes")))):
        rows = []
        for image, mask in held_out(options.data / f"{name}-srn.tar"):
            row, found = cells(model, image, mask, distance)
            print(name, json.dumps({**found.after, "confidence": found.confidence}))
            rows.append(row)
        save(rows, options.out / f"inversion-{name}.jpg")


def held_out(path: Path) -> list[tuple[Tensor, Tensor]]:
    """One view of each of some objects of the split val, drawn by seed."""
    objects = PosedObjects(path, "val")
    draws = torch.Generator().manual_seed(1)
    chosen = torch.randperm(len(objects), generator=draws)[:ROWS].tolist()
    found = []
    for place in chosen:
        item = objects.views(place, [int(torch.randint(24, (), generator=draws))])
        assert item.masks is not None
        found.append((item.images[0], item.masks[0]))
    return found


def outlined(
    picture: Image.Image, outline: tuple[tuple[int, int], ...], unit: int
) -> tuple[Tensor, Tensor]:
    """Picture and mask."""
    mask = Image.new("L", picture.size)
    scale = picture.width / unit
    ImageDraw.Draw(mask).polygon([(x * scale, y * scale) for x, y in outline], fill=255)
    return as_tensor(picture), as_tensor(mask)[0]


def as_tensor(picture: Image.Image) -> Tensor:
    """In [0, 1]."""
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return values.view(picture.height, picture.width, -1).permute(2, 0, 1) / 255


def cells(
    model: InversionModel, image: Tensor, mask: Tensor, distance: torch.nn.Module
) -> tuple[list[Tensor], Inverted]:
    """Picture, map, three stages, two sides, normals."""
    few = invert(model, image, mask, distance, steps_of(10))
    many = invert(model, image, mask, distance, steps_of(30))
    guess, half = few.start.guess, float(model.objects.generator.body.get_buffer("bounds").max())
    colored = (0.5 + 0.5 * guess.points[0] / half).clamp(0, 1)
    there = guess.opacity[0]
    scene = many.scene
    poses = turn_around(
        scene.camera.camera_to_world[0], scene.pivot, torch.tensor(SIDES), torch.zeros(len(SIDES))
    )
    others = [replace(scene.camera, camera_to_world=pose[None]) for pose in poses]
    normals = colorize_normals(scene.normals(size=(CELL, CELL))[0])
    photo = scene.photo
    assert photo is not None
    shown = [
        photo,
        colored * there + 1 - there,
        few.frames[0],
        few.frames[-1],
        many.frames[-1],
        *(scene.render(camera, (CELL, CELL)).rgb[0] for camera in others),
        torch.from_numpy(normals).permute(2, 0, 1) / 255,
    ]
    return [fitted(one) for one in shown], many


def fitted(image: Tensor) -> Tensor:
    """Of the cells' side."""
    size = (CELL, CELL)
    return torch.nn.functional.interpolate(image[None], size, mode="nearest-exact")[0]


def save(rows: list[list[Tensor]], path: Path) -> None:
    """A sheet with a row for each picture."""
    sheet = contact_sheet([cell.clamp(0, 1) for row in rows for cell in row], len(rows[0]))
    Image.fromarray(sheet).save(path, quality=88)


if __name__ == "__main__":
    main()
