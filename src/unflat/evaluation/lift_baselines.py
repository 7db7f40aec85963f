"""What a surface from one picture has to beat: plain solids, and the picture's own relief.

And one reference that sees more: the visual hull of several true masks.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.errors import UserError
from unflat.evaluation.estimators import DepthEstimator
from unflat.evaluation.lifter import Picture
from unflat.evaluation.relief import HALF_BOX, SOLID, origin_depth, outline_depth, placed_depth
from unflat.geometry.camera import Camera
from unflat.metrics import Surface, Triangles

HULL_VIEWS = 8
"""Masks that the visual hull is carved from."""
HULL_RESOLUTION = 64
"""Voxels along a side of it."""
_THIN = 1e-3  # world units: least half thickness of a relief
_FINER = 2  # vertices along a side of a pixel: one pixel alone still has faces


class Sphere:
    """The ball inside the unit box, whatever the picture."""

    name = "sphere"

    def describe(self) -> dict[str, object]:
        """Its size."""
        return {"radius": HALF_BOX}

    def lift(self, picture: Picture, seed: int) -> Surface:
        """Always the same."""
        import trimesh

        return trimesh.creation.icosphere(subdivisions=3, radius=HALF_BOX)


class UnitBox:
    """The unit box itself, whatever the picture."""

    name = "box"

    def describe(self) -> dict[str, object]:
        """Its size."""
        return {"side": 2 * HALF_BOX}

    def lift(self, picture: Picture, seed: int) -> Surface:
        """Always the same."""
        import trimesh

        return trimesh.creation.box(extents=[2 * HALF_BOX] * 3)


class Relief:
    """The front that a depth map shows, and its mirror image behind.

    Args:
        depth: tells relative disparity; the outline's own rounded front if not given.
        name: for the table.
    """

    def __init__(self, depth: DepthEstimator | None = None, name: str = "relief") -> None:
        self.depth, self.name = depth, name

    def describe(self) -> dict[str, object]:
        """Where the front comes from, and the back."""
        source: dict[str, object] = {"depth": "sphere: rounded by the distance to the outline"}
        if self.depth is not None:
            source = {
                "depth": {"name": self.depth.name, **self.depth.describe()},
                "placed": "median and 5th to 95th percentile of the mask's disparity as those of "
                "a sphere about the origin whose outline has the mask's area, cut at the unit box",
            }
        return {**source, "back": "the front mirrored at the plane through the origin"}

    def lift(self, picture: Picture, seed: int) -> Triangles:
        """A closed surface over the mask."""
        if self.depth is None:
            front = outline_depth(picture.mask, picture.camera)
        else:
            disparity = self.depth.disparity(picture.image[None], [picture.name])[0]
            front = placed_depth(disparity, picture.mask, picture.camera)
        middle = origin_depth(picture.camera)
        front = front.clamp_max(middle - _THIN)
        return relief_surface(picture.mask, front, 2 * middle - front, picture.camera)


class VisualHull:
    """All that several true masks leave: it sees what no method sees, a bound and no rival."""

    name = f"visual-hull-{HULL_VIEWS}-masks"

    def describe(self) -> dict[str, object]:
        """How it is carved."""
        return {
            "sees": f"true masks and cameras of {HULL_VIEWS} views, the input among them",
            "voxels": HULL_RESOLUTION,
            "surface": "marching cubes of the least matte over the views",
        }

    def lift(self, picture: Picture, seed: int) -> Triangles:
        """The surface of what every mask covers, within the unit box and a hair more.

        Raises:
            UserError: nothing is left.
        """
        return carve(picture.hull_masks, picture.hull_cameras, picture.name)


class PictureHull:
    """All that the picture's own mask allows: its cone within the unit box."""

    name = "hull-1-mask"

    def describe(self) -> dict[str, object]:
        """How it is carved."""
        return {"sees": "the input's true mask and camera", "voxels": HULL_RESOLUTION}

    def lift(self, picture: Picture, seed: int) -> Triangles:
        """The surface of what the mask covers, within the unit box and a hair more.

        Raises:
            UserError: nothing is left.
        """
        cameras = Camera(
            camera_to_world=picture.camera.camera_to_world[None],
            intrinsics=picture.camera.intrinsics[None],
            kind=picture.camera.kind,
        )
        return carve(picture.mask[None], cameras, picture.name)


def relief_surface(
    mask: Float[Tensor, "height width"],
    front: Float[Tensor, "height width"],
    back: Float[Tensor, "height width"],
    camera: Camera,
) -> Triangles:
    """A closed surface: a front and a back over the pixels of a mask, joined along its outline.

    Args:
        mask: matte.
        front: depth of the front, world units.
        back: depth of the back, larger than the front's.
        camera: of the picture, a single one.

    Raises:
        UserError: the mask is empty.
    """
    inside = np.repeat(np.repeat((mask >= SOLID).numpy(), _FINER, 0), _FINER, 1)
    if not inside.any():
        raise UserError("the mask is empty; leave the object out, or give a picture that shows it.")
    height, width = inside.shape
    v, u = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
    )
    uv = torch.stack([u, v], dim=-1).reshape(-1, 2)
    number = np.arange(height * width).reshape(height, width)
    whole = inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1] & inside[1:, 1:]
    a, b, c, d = (
        part[whole] for part in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:])
    )
    near = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])  # towards the camera
    far = near[:, ::-1] + number.size
    points = [
        camera.unproject(uv, _finer(depth, (height, width)).reshape(-1)) for depth in (front, back)
    ]
    vertices = torch.cat(points).double().numpy()
    faces = np.concatenate([near, far, _rim(near, number.size)])
    used, places = np.unique(faces, return_inverse=True)
    return Triangles(vertices[used], places.reshape(-1, 3).astype(np.int64))


def carve(
    masks: Float[Tensor, "views height width"], cameras: Camera, name: str = "the object"
) -> Triangles:
    """The visual hull of some masks (Laurentini 1994) on a voxel grid about the unit box.

    A voxel's value is the least matte that its middle falls on; outside a picture it is 0. The
    surface is where the value crosses one half.

    Raises:
        UserError: no voxel is covered in all views.
    """
    from skimage.measure import marching_cubes

    reach = HALF_BOX * (1 + 4 / HULL_RESOLUTION)
    steps = torch.linspace(-reach, reach, HULL_RESOLUTION)
    grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1).reshape(-1, 3)
    least = torch.ones(len(grid))
    for view in range(len(masks)):
        uv, depth = cameras[view].project(grid)
        uv = torch.where((depth > 0)[:, None], 2 * uv - 1, 2.0)
        seen = functional.grid_sample(
            masks[view][None, None], uv[None, None], mode="bilinear", align_corners=False
        )
        least = torch.minimum(least, seen[0, 0, 0])
    values = least.reshape([HULL_RESOLUTION] * 3).numpy()
    values = np.pad(values, 1)  # closed where it meets the grid's end
    if not (values > SOLID).any():
        raise UserError(f"{name}: its masks have nothing in common; check masks and cameras.")
    vertices, faces, _, _ = marching_cubes(values, SOLID)
    spacing = 2 * reach / (HULL_RESOLUTION - 1)
    return Triangles((vertices - 1) * spacing - reach, faces[:, ::-1].astype(np.int64))


def _finer(depth: Float[Tensor, "height width"], size: tuple[int, int]) -> Tensor:
    return functional.interpolate(depth[None, None], size=size, mode="bilinear")[0, 0]


def _rim(near: np.ndarray, count: int) -> np.ndarray:
    """Triangles between the open sides of the front and the same sides of the back."""
    sides = near[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    key, turned = sides[:, 0] * count + sides[:, 1], sides[:, 1] * count + sides[:, 0]
    start, end = sides[~np.isin(key, turned)].T
    first = np.stack([end, start, start + count], 1)
    second = np.stack([end, start + count, end + count], 1)
    return np.concatenate([first, second])
