"""Made-up scenes with exact depth, cameras, masks and normals: for tests and a first start.

A scene is one object on a textured ground, before a wall or under a sky, lit by one sun. Among the
classes, `hook` is not convex and differs from all its mirror images, so that a flipped axis
somewhere cannot go unnoticed::

    scene = make_scene("hook", np.random.default_rng(0))
    view = render_view(scene, scene.camera, 64)      # rgb, inverse_depth, mask, normal

World: z up, ground at z = 0, the object near the origin and about 1 unit long.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unflat.data.shapes import (
    Array,
    Box,
    Cylinder,
    Plane,
    Shape,
    Sphere,
    Texture,
    facing_normals,
    first_hits,
)
from unflat.geometry import Camera, look_at, pixel_grid, rigid, rotation_about

CLASSES = ("ball", "box", "hook", "post")
"""What the object of a scene can be, sorted."""

_UP = np.array([0.0, 0.0, 1.0])
_MOST_TRIES = 200  # turned cameras drawn before one that stands badly is taken
_CLEARANCE = 0.1  # of cameras from ground and wall, world units
_BOUND = 0.75  # radius of a ball around the object, world units


@dataclass(frozen=True, kw_only=True)
class ProceduralScene:
    """Shapes, light, and the canonical camera."""

    class_name: str
    """One of `CLASSES`."""
    shapes: tuple[Shape, ...]
    """The object first, then ground and wall."""
    object_shapes: int
    """How many of the shapes make up the object."""
    sun: Float[Array, "3"]
    """Unit direction towards the light."""
    ambient: float
    """Share of light that comes from everywhere, [0, 1]."""
    sky: tuple[tuple[float, float, float], tuple[float, float, float]]
    """sRGB at the horizon and overhead."""
    camera: Camera
    """The canonical view; float64."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What a camera sees."""

    rgb: Float[Array, "height width 3"]
    """sRGB, [0, 1], averaged over several rays a pixel."""
    inverse_depth: Float[Array, "height width"]
    """1/z at pixel centres, z along the optical axis; 0 is sky."""
    mask: Bool[Array, "height width"]
    """Whether a pixel's centre shows the object."""
    normal: Float[Array, "height width 3"]
    """Unit normals turned to the viewer, world axes, at pixel centres; 0 is sky."""


def make_scene(class_name: str, generator: np.random.Generator) -> ProceduralScene:
    """A random scene of a class; the same generator state gives the same scene."""
    wall = bool(generator.random() < 0.5)
    parts = _BUILDERS[class_name](generator)
    azimuth = generator.uniform(0.0, 2 * math.pi)
    shapes: list[Shape] = [*parts, _ground(generator)]
    if wall:  # behind the object, turned a little off the viewing direction
        turn = azimuth + math.pi + generator.uniform(-0.4, 0.4)
        away = np.array([math.cos(turn), math.sin(turn), 0.0])
        texture = _texture(generator, size=(0.3, 0.8))
        shapes.append(
            Plane(point=away * generator.uniform(1.2, 3.0), direction=-away, texture=texture)
        )
    height, heading = generator.uniform(0.5, 1.2), generator.uniform(0.0, 2 * math.pi)
    horizon = generator.uniform(0.75, 0.95, 3)
    overhead = horizon * generator.uniform([0.4, 0.5, 0.8], [0.7, 0.8, 1.05])
    return ProceduralScene(
        class_name=class_name,
        shapes=tuple(shapes),
        object_shapes=len(parts),
        sun=_direction(heading, height),
        ambient=generator.uniform(0.5, 0.65),
        sky=(_color(horizon), _color(np.minimum(overhead, 1.0))),
        camera=_canonical_camera(generator, azimuth),
    )


def novel_cameras(
    scene: ProceduralScene,
    pivot_depth: float,
    angles: Sequence[float],
    generator: np.random.Generator,
) -> Camera:
    """The canonical camera turned about the point at `pivot_depth` on its axis.

    The axis of each turn lies in the canonical picture plane, at random; cameras that would stand
    below the ground or behind the wall are drawn again.

    Args:
        scene: whose canonical camera is turned.
        pivot_depth: along the optical axis, world units.
        angles: radians, one for each new view.
        generator: of the axes.
    """
    pose = scene.camera.camera_to_world
    pivot = scene.camera.position + pivot_depth * scene.camera.forward
    planes = [shape for shape in scene.shapes if isinstance(shape, Plane)]
    poses = []
    for angle in angles:
        turned, tries = pose, 0
        while tries == 0 or (tries < _MOST_TRIES and not _is_in_front(turned, planes)):
            heading = generator.uniform(0.0, 2 * math.pi)
            axis = math.cos(heading) * pose[:3, 0] + math.sin(heading) * pose[:3, 1]
            rotation = rotation_about(axis, torch.tensor(angle, dtype=pose.dtype))
            position = pivot + rotation @ (pose[:3, 3] - pivot)
            turned, tries = rigid(rotation @ pose[:3, :3], position), tries + 1
        poses.append(turned)
    return Camera(
        camera_to_world=torch.stack(poses),
        intrinsics=scene.camera.intrinsics.expand(len(poses), 4),
    )


def render_view(scene: ProceduralScene, camera: Camera, resolution: int, *, rays: int = 2) -> View:
    """What one camera sees, exact up to float64; `rays` x `rays` colours a pixel are averaged."""
    origins, directions = _rays(camera, resolution, 1)
    depth, which = first_hits(scene.shapes, origins, directions)
    normal = facing_normals(scene.shapes, origins, directions, depth, which)
    square = (resolution, resolution)
    with np.errstate(divide="ignore"):
        inverse = np.where(np.isfinite(depth), 1.0 / depth, 0.0)
    if rays > 1:
        origins, directions = _rays(camera, resolution, rays)
        depth, which_colored = first_hits(scene.shapes, origins, directions)
        colors = _shade(scene, origins, directions, depth, which_colored)
        blocks = colors.reshape(resolution, rays, resolution, rays, 3)
        rgb = blocks.mean(axis=(1, 3))
    else:
        rgb = _shade(scene, origins, directions, depth, which).reshape(*square, 3)
    return View(
        rgb=rgb,
        inverse_depth=inverse.reshape(square),
        mask=((which >= 0) & (which < scene.object_shapes)).reshape(square),
        normal=normal.reshape(*square, 3),
    )


def _is_in_front(pose: Tensor, planes: Sequence[Plane]) -> bool:
    place = pose[:3, 3].numpy()
    return all((place - plane.point) @ plane.direction > _CLEARANCE for plane in planes)


def _rays(camera: Camera, resolution: int, rays: int) -> tuple[Array, Array]:
    """Rays whose parameter is the depth along the optical axis."""
    uv = pixel_grid(resolution * rays, resolution * rays, dtype=torch.float64).reshape(-1, 2)
    uv = uv.numpy()
    fx, fy, cx, cy = camera.intrinsics.numpy()
    local = np.stack([(uv[:, 0] - cx) / fx, (uv[:, 1] - cy) / fy, np.ones(len(uv))], axis=1)
    directions = local @ camera.rotation.numpy().T
    origins = np.broadcast_to(camera.position.numpy(), directions.shape)
    return origins, directions


def _shade(
    scene: ProceduralScene, origins: Array, directions: Array, depth: Array, which: Array
) -> Array:
    normals = facing_normals(scene.shapes, origins, directions, depth, which)
    climb = directions[:, 2] / np.linalg.norm(directions, axis=1)
    horizon, overhead = (np.array(color) for color in scene.sky)
    colors = horizon + np.sqrt(np.clip(climb, 0.0, 1.0))[:, None] * (overhead - horizon)
    lit = np.maximum(normals @ scene.sun, 0.0)
    light = scene.ambient * (0.8 + 0.2 * normals[:, 2]) + (1.0 - scene.ambient) * lit
    for number, shape in enumerate(scene.shapes):
        here = which == number
        if here.any():
            points = origins[here] + depth[here, None] * directions[here]
            albedo = shape.texture.color(points)
            if isinstance(shape, Plane):  # patterns finer than pixels fade into their mean, as haze
                far = np.clip(depth[here, None] / 12.0, 0.0, 1.0)
                mean = 0.5 * (np.array(shape.texture.first) + np.array(shape.texture.second))
                albedo = albedo + far * (mean - albedo)
            colors[here] = albedo * light[here, None]
    return np.clip(colors, 0.0, 1.0)


def _canonical_camera(generator: np.random.Generator, azimuth: float) -> Camera:
    fov = math.radians(generator.uniform(35.0, 65.0))
    elevation = math.radians(generator.uniform(8.0, 34.0))
    # The object's ball fills 0.78 to 1.2 of the field.
    distance = _BOUND / math.sin(0.5 * fov * generator.uniform(0.78, 1.2))
    target = np.array([0.0, 0.0, 0.4]) + generator.uniform(-0.1, 0.1, 3)
    position = target + distance * _direction(azimuth, elevation)
    position[2] = max(position[2], 0.2)
    pose = look_at(torch.from_numpy(position), torch.from_numpy(target), (0.0, 0.0, 1.0))
    return Camera.from_fov(fov, pose)


def _ball(generator: np.random.Generator) -> list[Shape]:
    radius = generator.uniform(0.35, 0.5)
    return [Sphere(center=radius * _UP, radius=radius, texture=_texture(generator))]


def _box(generator: np.random.Generator) -> list[Shape]:
    half = generator.uniform([0.3, 0.2, 0.15], [0.5, 0.4, 0.45])
    return [_upright(half[2] * _UP, half, _yaw(generator), _texture(generator))]


def _post(generator: np.random.Generator) -> list[Shape]:
    radius, half = generator.uniform(0.1, 0.25), generator.uniform(0.35, 0.5)
    texture = _texture(generator)
    post = Cylinder(center=half * _UP, radius=radius, half_height=half, texture=texture)
    ball = generator.uniform(1.1, 1.5) * radius
    top = Sphere(center=2 * half * _UP, radius=ball, texture=_texture(generator))
    return [post, top]


def _hook(generator: np.random.Generator) -> list[Shape]:
    """An upright, a long foot along its +x and a short arm along its +y halfway up.

    The three arms have different lengths along three axes, so no rotation brings the shape onto a
    mirror image of itself.
    """
    turn, thick = _yaw(generator), generator.uniform(0.08, 0.12)
    height, foot, arm = generator.uniform([0.8, 0.5, 0.28], [1.0, 0.6, 0.36])
    texture = _texture(generator)
    accent = _texture(generator)

    def part(low: Sequence[float], high: Sequence[float], texture: Texture) -> Box:
        bounds = np.array([low, high])
        center = turn @ bounds.mean(axis=0)
        return _upright(center, 0.5 * (bounds[1] - bounds[0]), turn, texture)

    level = 0.55 * height
    return [
        part([-thick, -thick, 0.0], [thick, thick, height], texture),
        part([thick, -thick, 0.0], [thick + foot, thick, 2 * thick], texture),
        part([-thick, thick, level], [thick, thick + arm, level + 2 * thick], accent),
    ]


_BUILDERS: dict[str, Callable[[np.random.Generator], list[Shape]]] = {
    "ball": _ball,
    "box": _box,
    "hook": _hook,
    "post": _post,
}


def _ground(generator: np.random.Generator) -> Plane:
    return Plane(point=np.zeros(3), direction=_UP, texture=_texture(generator, size=(0.3, 0.8)))


def _upright(center: Array, half_size: Array, rotation: Array, texture: Texture) -> Box:
    return Box(center=center, half_size=half_size, rotation=rotation, texture=texture)


def _yaw(generator: np.random.Generator) -> Array:
    angle = generator.uniform(0.0, 2 * math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _direction(azimuth: float, elevation: float) -> Array:
    flat = math.cos(elevation)
    return np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)])


def _texture(generator: np.random.Generator, size: tuple[float, float] = (0.12, 0.3)) -> Texture:
    first = generator.uniform(0.25, 0.95, 3)
    second = np.clip(first * generator.uniform(0.45, 1.4) + generator.uniform(-0.2, 0.2, 3), 0, 1)
    kind = ("plain", "checker", "stripes", "waves")[int(generator.integers(4))]
    return Texture(
        first=_color(first), second=_color(second), kind=kind, size=generator.uniform(*size)
    )


def _color(values: Array) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
