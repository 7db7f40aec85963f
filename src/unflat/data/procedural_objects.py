"""A made-up category whose objects look different from every side, with exact views of them.

Every object is a cart with its own sizes, places and colors: a body, a cabin in front and to the
right, a ball at the left rear, a pole on the right. No two of its sides look alike and it is not
its own mirror image, so that a picture seen from the wrong side, or mirrored, cannot pass for
right::

    carts = ProceduralObjects(count=64)
    camera = carts.cameras(3, views=16)
    carts.view(3, camera, 32).depth             # also rgb, mask, normal: exact for any camera

The box around an object has its middle in the origin and a diagonal of 1. Light comes from one sun
that is fixed in the world and from all around; no color depends on where it is seen from.
"""

import colorsys
import json
import math
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.object_layouts import USUAL_SPLITS
from unflat.data.pictures import picture_bytes
from unflat.data.shapes import (
    Array,
    Box,
    Cylinder,
    Sphere,
    Texture,
    facing_normals,
    first_hits,
)
from unflat.data.shard import add_file
from unflat.errors import UserError
from unflat.files import atomic_folder
from unflat.geometry import (
    Camera,
    OrbitPrior,
    Uniform,
    UniformSine,
    camera_object_to_z_up,
    orbit_pose,
    pixel_grid,
    z_up_to_object,
)

RADIUS = 1.3
"""Distance of the cameras from the origin, world units."""
FOCAL = 131.25 / 128.0
"""Focal length in picture widths, as in SRN's renders of cars and planes."""
DEPTH_UNIT = 5e-5
"""World units per step of a 16-bit depth file; 3.28 is the deepest."""

Split = Literal["train", "val", "test"]

_GOLDEN_TURN = 137.50776 / 360.0  # between neighbors of the fixed views
_SUN = (math.radians(-60.0), math.radians(55.0))  # azimuth from +x towards +y (z up), elevation
_AMBIENT, _GAIN = 0.6, 0.96  # no lit surface is as white as the background
_RAYS = 2  # a pixel's color is the mean over so many by so many
_CAMERA_STREAM = 1


@dataclass(frozen=True, kw_only=True)
class ObjectView:
    """What one or more cameras see of an object."""

    rgb: Float[Tensor, "*views 3 side side"]
    """sRGB over white, [0, 1], the mean of several rays a pixel."""
    mask: Float[Tensor, "*views side side"]
    """Share of the same rays that meet the object."""
    depth: Float[Tensor, "*views side side"]
    """Along the optical axis at pixel centers, world units; infinite where nothing is."""
    normal: Float[Tensor, "*views 3 side side"]
    """Outward unit normals at pixel centers in the object world; 0 where nothing is."""


@dataclass(frozen=True, kw_only=True)
class ProceduralObjects:
    """The objects of one split; the same numbers give the same objects, whatever the count."""

    count: int = 64
    """How many there are."""
    seed: int = 0
    """Of objects and cameras."""
    split: Split = "train"
    """No object of one split is in another. Cameras of ``train`` are drawn at random; those of
    ``val`` and ``test`` are the same for each object and spread evenly."""
    azimuth: tuple[float, float] = (-math.pi, math.pi)
    """Range of the cameras' azimuths, radians; 0 is in front."""
    elevation: tuple[float, float] = (0.0, math.pi / 3.0)
    """Range of the cameras' elevations, radians; their sine is uniform."""

    def __len__(self) -> int:
        """How many objects there are."""
        return self.count

    def name(self, index: int) -> str:
        """Of an object, as in files."""
        return f"{self.split}-{index:05d}"

    def object(self, index: int) -> tuple[Box, Box, Sphere, Cylinder]:
        """Body, cabin, ball and pole, in the world of files: z up, front -y, left +x.

        Raises:
            IndexError: there is no such object.
        """
        return _cart(np.random.default_rng(self._key(index)))

    def cameras(self, index: int, views: int) -> Camera:
        """The cameras from which a data set shows an object, float32, in the object world.

        Raises:
            IndexError: there is no such object.
        """
        key = self._key(index)
        low, high = self.elevation
        if self.split == "train":
            seed = int(np.random.default_rng([*key, _CAMERA_STREAM]).integers(2**62))
            prior = OrbitPrior(
                azimuth=Uniform(low=self.azimuth[0], high=self.azimuth[1]),
                elevation=UniformSine(low=low, high=high),
                radius=Uniform(low=RADIUS, high=RADIUS),
            )
            poses = prior.sample(views, torch.Generator().manual_seed(seed))
        else:
            number = torch.arange(views, dtype=torch.float64)
            turn = self.azimuth[1] - self.azimuth[0]
            azimuth = self.azimuth[0] + turn * (number * _GOLDEN_TURN % 1.0)
            share = (number + 0.5) / views
            sine = math.sin(low) + (math.sin(high) - math.sin(low)) * share
            poses = orbit_pose(torch.asin(sine), azimuth, RADIUS).float()
        intrinsics = torch.tensor([FOCAL, FOCAL, 0.5, 0.5])
        return Camera(camera_to_world=poses, intrinsics=intrinsics.expand(views, 4))

    def view(self, index: int, camera: Camera, side: int) -> ObjectView:
        """An object as any cameras of the object world see it, computed in float64.

        Args:
            index: of the object.
            camera: a single view or any batch; perspective or orthographic.
            side: of the pictures in pixels.

        Raises:
            IndexError: there is no such object.
        """
        shapes, flat = self.object(index), camera_object_to_z_up(camera.to("cpu", torch.float64))
        if not flat.batch_shape:
            return _seen(shapes, flat, side)
        count = flat.intrinsics[..., 0].numel()
        poses, intrinsics = (
            flat.camera_to_world.reshape(count, 4, 4),
            flat.intrinsics.view(count, 4),
        )
        singles = [
            _seen(shapes, replace(flat, camera_to_world=pose, intrinsics=inner), side)
            for pose, inner in zip(poses, intrinsics, strict=True)
        ]

        def joined(maps: list[Tensor]) -> Tensor:
            return torch.stack(maps).unflatten(0, tuple(flat.batch_shape))

        return ObjectView(
            rgb=joined([single.rgb for single in singles]),
            mask=joined([single.mask for single in singles]),
            depth=joined([single.depth for single in singles]),
            normal=joined([single.normal for single in singles]),
        )

    def _key(self, index: int) -> list[int]:
        if not 0 <= index < self.count:
            raise IndexError(f"there is no object {index} among {self.count}")
        return [self.seed, USUAL_SPLITS.index(self.split), index]


@dataclass(frozen=True, kw_only=True)
class ProceduralObjectFiles:
    """What was written."""

    path: Path
    """The tar, which `PosedObjects` reads."""
    objects: dict[str, int]
    """How many objects each split has."""


def write_procedural_objects(
    out: str | Path,
    count: int = 64,
    resolution: int = 32,
    seed: int = 0,
    views: int = 16,
    *,
    held_out: int | None = None,
    azimuth: tuple[float, float] = (-math.pi, math.pi),
    elevation: tuple[float, float] = (0.0, math.pi / 3.0),
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ProceduralObjectFiles:
    """A folder with ``objects.tar``, whole or not at all.

    It has SRN's layout (see `unflat.data.posed_objects`) with the splits train, val and test, and
    ``<split>/<name>/depth/000000.png`` beside each picture: depth along the optical axis at pixel
    centers, 16 bit, 0 where nothing is, in steps that ``depth.json`` tells. The same arguments give
    the same bytes with the same library versions.

    Args:
        out: folder to make.
        count: objects to train from.
        resolution: side in pixels.
        seed: of objects and cameras.
        views: of each object.
        held_out: objects of val, and of test; an eighth of `count` (at least 4) if not given.
        azimuth: range of the cameras, radians; 0 is in front.
        elevation: range of the cameras, radians.
        force: replace an older result.
        progress: told (done, all) after each object.

    Raises:
        UserError: a number that cannot be, `out` holds something already, or the disk is full.
    """
    for option, number, least in (
        ("--count", count, 1),
        ("--resolution", resolution, 4),
        ("--views", views, 1),
        ("--seed", seed, 0),
    ):
        if number < least:
            raise UserError(f"{option} {number}: must be at least {least}.")
    held_out = max(4, count // 8) if held_out is None else held_out
    counts = {"train": count, "val": held_out, "test": held_out}
    total, done, out = sum(counts.values()), 0, Path(out)
    note = "depth along the optical axis at pixel centers = value * unit; 0: no surface"
    with (
        atomic_folder(out, force, shown_by="objects.tar") as folder,
        tarfile.open(folder / "objects.tar", "w") as archive,
    ):
        add_file(archive, "depth.json", json.dumps({"unit": DEPTH_UNIT, "is": note}).encode())
        for split in USUAL_SPLITS:
            objects = ProceduralObjects(
                count=counts[split], seed=seed, split=split, azimuth=azimuth, elevation=elevation
            )
            for index in range(len(objects)):
                _add_object(archive, objects, index, resolution, views)
                done += 1
                if progress is not None:
                    progress(done, total)
    return ProceduralObjectFiles(path=out / "objects.tar", objects=counts)


def _add_object(
    archive: tarfile.TarFile, objects: ProceduralObjects, index: int, side: int, views: int
) -> None:
    camera = objects.cameras(index, views)
    poses = camera_object_to_z_up(camera).camera_to_world.flatten(1).tolist()
    seen = objects.view(index, camera, side)
    colors = (seen.rgb * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    steps = torch.where(seen.depth.isfinite(), seen.depth / DEPTH_UNIT, 0.0)
    depths = steps.round().numpy().astype(np.uint16)
    folder = f"{objects.split}/{objects.name(index)}"
    focal, center = FOCAL * side, 0.5 * side
    lines = f"{focal!r} {center!r} {center!r} 0.\n0. 0. 0.\n1.\n{side} {side}\n"
    add_file(archive, f"{folder}/intrinsics.txt", lines.encode())
    for view in range(views):
        numbers = " ".join(f"{value:.9g}" for value in poses[view])  # all digits of a float32
        add_file(archive, f"{folder}/rgb/{view:06d}.png", picture_bytes(colors[view]))
        add_file(archive, f"{folder}/pose/{view:06d}.txt", numbers.encode())
        add_file(archive, f"{folder}/depth/{view:06d}.png", picture_bytes(depths[view]))


def _cart(generator: np.random.Generator) -> tuple[Box, Box, Sphere, Cylinder]:
    """One object: sizes drawn within limits, then moved and scaled to its place."""
    draw = generator.uniform
    body = draw([0.16, 0.34, 0.06], [0.22, 0.42, 0.12])  # half sizes: across, along, up
    cabin = np.array([draw(0.55, 0.75) * body[0], draw(0.10, 0.14), draw(0.09, 0.15)])
    ball, pole, height = draw(0.09, 0.13), draw(0.03, 0.045), draw(0.15, 0.23)
    paints = _paints(generator)
    left, rear, deck = body
    right, front = -left, -rear
    parts = (
        _block(np.zeros(3), body, paints[0]),
        _block(np.array([right, front, deck]) + cabin, cabin, paints[1]),
        Sphere(
            center=np.array(
                [left * draw(0.3, 0.6), rear - draw(0.9, 1.3) * ball, deck + 0.7 * ball]
            ),
            radius=ball,
            texture=paints[2],
        ),
        Cylinder(
            center=np.array([right + 1.5 * pole, rear * draw(0.0, 0.4), deck + height]),
            radius=pole,
            half_height=height,
            texture=paints[3],
        ),
    )
    return _placed(parts)


def _placed(parts: tuple[Box, Box, Sphere, Cylinder]) -> tuple[Box, Box, Sphere, Cylinder]:
    """The middle of the box around all parts in the origin, its diagonal 1."""
    body, cabin, ball, pole = parts
    reach = [
        body.half_size,
        cabin.half_size,
        np.full(3, ball.radius),
        np.array([pole.radius, pole.radius, pole.half_height]),
    ]
    low = np.min([part.center - size for part, size in zip(parts, reach, strict=True)], axis=0)
    high = np.max([part.center + size for part, size in zip(parts, reach, strict=True)], axis=0)
    middle, scale = 0.5 * (low + high), 1.0 / float(np.linalg.norm(high - low))
    centers = [scale * (part.center - middle) for part in parts]
    return (
        replace(body, center=centers[0], half_size=scale * body.half_size),
        replace(cabin, center=centers[1], half_size=scale * cabin.half_size),
        replace(ball, center=centers[2], radius=scale * ball.radius),
        replace(
            pole,
            center=centers[3],
            radius=scale * pole.radius,
            half_height=scale * pole.half_height,
        ),
    )


def _paints(generator: np.random.Generator) -> list[Texture]:
    """Four colors that differ: three hues far apart, and a dark gray."""
    draw, hue = generator.uniform, generator.uniform()
    hues = [hue, hue + draw(0.25, 0.4), hue + draw(0.6, 0.75)]
    colors = [colorsys.hsv_to_rgb(h % 1.0, draw(0.5, 0.8), draw(0.6, 0.9)) for h in hues]
    gray = draw(0.15, 0.3)
    return [Texture(first=color, second=color) for color in [*colors, (gray, gray, gray)]]


def _block(center: Array, half_size: Array, texture: Texture) -> Box:
    return Box(center=center, half_size=half_size, rotation=np.eye(3), texture=texture)


def _seen(shapes: tuple[Box, Box, Sphere, Cylinder], camera: Camera, side: int) -> ObjectView:
    """The view of one camera, all in the world of files but for the normals."""
    origins, directions = _rays(camera, side, _RAYS)
    depth, which = first_hits(shapes, origins, directions)
    normal = facing_normals(shapes, origins, directions, depth, which)
    rgb = _shade(shapes, which, normal).reshape(side, _RAYS, side, _RAYS, 3).mean(axis=(1, 3))
    mask = (which >= 0).reshape(side, _RAYS, side, _RAYS).mean(axis=(1, 3))
    origins, directions = _rays(camera, side, 1)
    depth, which = first_hits(shapes, origins, directions)
    normal = facing_normals(shapes, origins, directions, depth, which).reshape(side, side, 3)
    return ObjectView(
        rgb=torch.from_numpy(rgb).permute(2, 0, 1).float(),
        mask=torch.from_numpy(mask).float(),
        depth=torch.from_numpy(depth).reshape(side, side).float(),
        normal=z_up_to_object(torch.from_numpy(normal)).permute(2, 0, 1).float(),
    )


def _rays(camera: Camera, side: int, rays: int) -> tuple[Array, Array]:
    """Rays whose parameter is the depth along the optical axis."""
    uv = pixel_grid(side * rays, side * rays, dtype=torch.float64).reshape(-1, 2)
    start = camera.unproject(uv, torch.zeros(len(uv), dtype=torch.float64))
    ahead = camera.unproject(uv, torch.ones(len(uv), dtype=torch.float64))
    return start.numpy(), (ahead - start).numpy()


def _shade(
    shapes: tuple[Box, Box, Sphere, Cylinder], which: Array, normal: Float[Array, "n 3"]
) -> Float[Array, "n 3"]:
    """Diffuse colors: light from all around, a little more from above, and the sun's."""
    turn, height = _SUN
    flat = math.cos(height)
    sun = np.array([flat * math.cos(turn), flat * math.sin(turn), math.sin(height)])
    light = _AMBIENT * (0.8 + 0.2 * normal[:, 2])
    light += (1.0 - _AMBIENT) * np.maximum(normal @ sun, 0.0)
    albedo = np.array([shape.texture.first for shape in shapes])[which]  # -1 is painted over
    return np.where(which[:, None] < 0, 1.0, np.clip(_GAIN * albedo * light[:, None], 0.0, 1.0))
