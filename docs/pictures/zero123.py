"""The pose rig of Zero-1-to-3, and what the bundled model makes of held-out renders.

    python docs/pictures/zero123.py rig            # zero123-pose.png
    python docs/pictures/zero123.py views DATA     # zero123-views.jpg
    python docs/pictures/zero123.py lift DATA      # zero123-lift.jpg, some minutes

DATA holds objects-zero123.tar. In zero123-views.jpg each object has two rows, the truth above what
is made: the picture, then six other views. In zero123-lift.jpg: the picture, the lifted object from
there and from five other sides.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unflat.data import open_views
from unflat.export import contact_sheet
from unflat.geometry import Camera, orbit_pose
from unflat.geometry.pose import orbit_coordinates
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.lift import lift
from unflat.systems.zero123.make import make_views
from unflat.systems.zero123.model import Views
from unflat.systems.zero123.pipeline import load_view_model
from unflat.systems.zero123.sampler import Sampler

PLACE = Path(__file__).parent
MODEL = "unflat-views"
SIDE = 128
OBJECTS = (1, 3, 4, 9, 13, 21, 31, 37)  # of the split val, one of each class
VIEWS = (2, 5, 8, 11, 14, 20)
LIFTED = (3, 4, 9, 21, 31)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures of the page on Zero-1-to-3.")
    parser.add_argument("what", choices=("rig", "views", "lift"))
    parser.add_argument("data", type=Path, nargs="?")
    options = parser.parse_args()
    if options.what == "rig":
        rig(PLACE / "zero123-pose.png")
        return
    if options.data is None:
        parser.error("DATA: is wanted for views and lift")
    rows = {"views": view_rows, "lift": lift_rows}[options.what](options.data)
    sheet = contact_sheet([_large(one) for row in rows for one in row], columns=len(rows[0]))
    Image.fromarray(sheet).save(PLACE / f"zero123-{options.what}.jpg", quality=85)


def rig(path: Path) -> None:
    """The four numbers, from the side and from above."""
    from matplotlib import pyplot as plt
    from matplotlib.patches import Arc

    figure, (side, above) = plt.subplots(1, 2, figsize=(9, 4.2))
    first, second, turn, far = 15, 50, 60, 1.25
    for axes in (side, above):
        axes.set_aspect("equal")
        axes.axis("off")
        axes.add_patch(plt.Circle((0, 0), 0.22, color="0.85"))
    places = [
        (math.cos(math.radians(e)) * r, math.sin(math.radians(e)) * r)
        for e, r in ((first, 1.0), (second, far))
    ]
    for (x, y), name in zip(places, ("picture", "new view"), strict=True):
        side.plot([0, x], [0, y], color="0.6", linewidth=1)
        side.plot(x, y, "o", color="C0" if name == "picture" else "C3")
        side.annotate(name, (x, y), (8, -3), textcoords="offset points")
    side.plot([0, 0], [0, 1.25], color="0.3", linewidth=1)
    side.annotate("up", (0, 1.25), (-4, 4), textcoords="offset points")
    side.plot([0, 1.2], [0, 0], color="0.8", linewidth=1, linestyle=":")
    for angle, size, color in ((first, 0.8, "C0"), (second, 0.62, "C3")):
        side.add_patch(Arc((0, 0), size, size, theta1=angle, theta2=90, color=color))
    side.annotate("polar angles are counted\nfrom up: 75 and 40 degrees", (0.78, 1.08), fontsize=8)
    side.annotate("elevation is counted from level", (0.35, -0.14), fontsize=8)
    side.set_title("polar = -35 degrees: higher;  radius = +0.25: farther", fontsize=9)
    side.set_xlim(-0.3, 1.55)
    side.set_ylim(-0.3, 1.45)
    above.plot([0, 0], [0, -1.0], color="0.6", linewidth=1)
    above.plot(0, -1.0, "o", color="C0")
    above.annotate("picture", (0, -1.0), (8, -10), textcoords="offset points")
    x, y = (far * math.sin(math.radians(turn)), -far * math.cos(math.radians(turn)))
    above.plot([0, x], [0, y], color="0.6", linewidth=1)
    above.plot(x, y, "o", color="C3")
    above.annotate("new view", (x, y), (8, -3), textcoords="offset points")
    above.add_patch(Arc((0, 0), 1.1, 1.1, theta1=-90, theta2=-90 + turn, color="C3"))
    words = "azimuth = +60 degrees:\ncounter-clockwise from above,\nto the camera's right"
    above.annotate(words, (-1.05, -1.32), fontsize=8)
    above.set_title("from above", fontsize=9)
    above.set_xlim(-1.1, 1.7)
    above.set_ylim(-1.4, 0.5)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def view_rows(data: Path) -> list[list[Tensor]]:
    """Two rows for each object: the truth, and what is made."""
    model = load_view_model(MODEL)
    images, opacity, cameras = _held_out(data, model.side)
    rows: list[list[Tensor]] = []
    for number in OBJECTS:
        camera = cameras[number]
        elevation, _, _ = orbit_coordinates(camera.position[:1])
        reference = model.reference(images[number][:1], opacity[number][:1], elevation)
        asked = torch.tensor(VIEWS)
        made = make_views(
            model,
            reference,
            RelativePose.between(camera[0], camera[asked]),
            Sampler(guidance_scale=model.guidance_scale),
            seed=number,
        )
        picture = images[number][0]
        rows.append([picture, *images[number][asked]])
        rows.append([torch.ones_like(picture), *made.image])
    return rows


def lift_rows(data: Path) -> list[list[Tensor]]:
    """A row for each object."""
    model = load_view_model(MODEL)
    images, opacity, cameras = _held_out(data, model.side)
    rows = []
    for number in LIFTED:
        image, matte = images[number][0], opacity[number][0]
        elevation, _, radius = orbit_coordinates(cameras[number].position[0])
        reference = model.reference(image[None], matte[None], elevation[None])
        sampler = Sampler(guidance_scale=model.guidance_scale)

        def make(poses: RelativePose, seed: int, told=reference, sampler=sampler) -> Views:
            return make_views(model, told, poses, sampler, seed=seed)

        front = Camera(
            camera_to_world=orbit_pose(elevation, torch.zeros(()), radius),
            intrinsics=cameras[number].intrinsics[0],
        )
        found = lift(
            model,
            image,
            matte,
            method="fit",
            preset="fast",
            elevation=float(elevation),
            seed=0,
            make_views=make,
            camera=front,
        )
        turns = torch.deg2rad(torch.tensor([0.0, 60.0, 120.0, 180.0, 240.0, 300.0]))
        poses = orbit_pose(elevation.expand(6), turns, radius)
        around = Camera(
            camera_to_world=poses, intrinsics=front.intrinsics.expand(6, 4), kind=front.kind
        )
        with torch.no_grad():
            seen = found.scene.render(around, (SIDE, SIDE))
        views = seen.features
        rows.append([image, *views.clamp(0, 1)])
    return rows


def _held_out(data: Path, side: int) -> tuple[list[Tensor], list[Tensor], list[Camera]]:
    """Pictures, opacity and cameras of every object of the split val."""
    views = open_views(data / "objects-zero123.tar", side, "val")
    if views.masks is None or views.camera is None:
        raise ValueError("the set has no masks or cameras")
    own = [(views.objects == number).nonzero()[:, 0] for number in range(len(views.names))]
    return (
        [views.images[one].float() / 255 for one in own],
        [views.masks[one].float() / 255 for one in own],
        [views.camera[one] for one in own],
    )


def _large(image: Tensor) -> np.ndarray:
    """In 255ths, at the sheet's size."""
    size = (SIDE, SIDE)
    shown = torch.nn.functional.interpolate(image[None], size=size, mode="bilinear")[0]
    return (shown.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


if __name__ == "__main__":
    main()
