"""Pictures of a colored mesh from known cameras: the renders that Zero-1-to-3 learns from.

The rules are those of the published script (arXiv 2303.11328 and its code): the longest side of
the box is 1, its middle the origin; a field of view of 49.13 degrees; radii from 1.5 to 2.2; no
roll. Light is ours: one sun for each object, and ambient light, without shadows or gloss, so that
a point has one color in all views.

    surface = to_unit_size(read_object_mesh("chair.glb"))
    rng = np.random.default_rng(0)
    light, camera = draw_light("sun", rng), draw_cameras(12, "sphere", rng)
    pictures = render_surface(surface, camera, light, 512)
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from unflat.data.object_mesh import ObjectSurface
from unflat.geometry import Camera, look_at, z_up_to_object
from unflat.geometry.published_frames import ZERO123_FOV
from unflat.geometry.rays import camera_rays
from unflat.rendering.rasterize import rasterize

Directions = Literal["sphere", "cube"]
"""Where cameras stand: evenly over all sides, or as the published script draws them."""
Lighting = Literal["sun", "even"]
"""One sun for each object, or the plain colors."""

RADII = (1.5, 2.2)
"""Nearest and farthest camera, in longest sides of the object."""

_AMBIENT = 0.6
_GAINS = (1.0, 1.2)
_SKY = 0.2  # how much of the ambient light depends on how far up a surface faces
_BLOCK = 1 << 18  # rays, or points, at once
_SURE = 1e-6  # of the picture's width: what the box of an object's corners is widened by

FaceFinder = Callable[[Camera, int], Int[np.ndarray, "size size"]]
"""Number of the triangle that each pixel's middle sees, -1 where there is nothing."""


@dataclass(frozen=True, kw_only=True)
class Light:
    """A sun and what comes from everywhere: gain * color * (ambient part + sun part).

    The ambient part is `ambient` * (0.8 + 0.2 n_up), the sun's (1 - `ambient`) * max(0, n . sun),
    with n turned to the viewer; sRGB values, cut at 1.
    """

    sun: tuple[float, float, float]
    """Unit direction towards it, in the object world."""
    gain: float
    """A color in full light, as a multiple of itself."""
    ambient: float = _AMBIENT
    """Share that comes from everywhere, [0, 1]."""


def draw_light(kind: Lighting, rng: np.random.Generator) -> Light | None:
    """A sun where the published script's lamp stands; None for even light.

    The lamp's place in the file's world is uniform in x and y from -1 to 1 and in z (up) from 0.5
    to 1.5; the gain is uniform from 1 to 1.2. They are drawn for even light too, so that both have
    the same cameras.
    """
    x, y, z = rng.uniform((-1.0, -1.0, 0.5), (1.0, 1.0, 1.5))
    place = z_up_to_object(torch.tensor([x, y, z], dtype=torch.float64)).numpy()
    sun = place / np.linalg.norm(place)
    toward = (float(sun[0]), float(sun[1]), float(sun[2]))
    gain = float(rng.uniform(*_GAINS))
    return Light(sun=toward, gain=gain) if kind == "sun" else None


def draw_cameras(count: int, directions: Directions, rng: np.random.Generator) -> Camera:
    """Cameras that look at the origin without roll, from all sides, below included.

    Args:
        count: of cameras.
        directions: uniform on the sphere, or a uniform point of a cube divided by its length, 5.2
            times as dense towards its corners as along the axes.
        rng: of directions and radii.

    Returns:
        A batch in float64, in the object world.
    """
    if directions == "cube":
        ways = rng.uniform(-1.0, 1.0, (count, 3))
    else:
        ways = rng.standard_normal((count, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    positions = torch.from_numpy(ways * rng.uniform(*RADII, (count, 1)))
    return Camera.from_fov(ZERO123_FOV, look_at(positions))


def to_unit_size(surface: ObjectSurface, up: Literal["y", "z"] = "y") -> ObjectSurface:
    """The surface about the origin with a longest side of 1.

    Args:
        surface: of any size, with an extent.
        up: the file's; z up with the front along -y is turned to the object world.
    """
    parts = surface.parts
    if up == "z":
        turned = [z_up_to_object(torch.tensor(part.triangles)).numpy() for part in parts]
        parts = [replace(p, triangles=t) for p, t in zip(parts, turned, strict=True)]
    low, high = replace(surface, parts=parts).bounds
    middle, side = (low + high) / 2, float((high - low).max())
    moved = [replace(part, triangles=(part.triangles - middle) / side) for part in parts]
    return replace(surface, parts=moved)


def area(surface: ObjectSurface) -> float:
    """Of all triangles, both sides counted once."""
    first, second, third = surface.triangles.transpose(1, 0, 2)
    return float(np.linalg.norm(np.cross(second - first, third - first), axis=1).sum() / 2)


def has_embree() -> bool:
    """Whether rays can be cast by Embree, some ten times as fast as what stands in for it."""
    return importlib.util.find_spec("embreex") is not None


def face_finder(triangles: Float[np.ndarray, "faces 3 3"]) -> FaceFinder:
    """By Embree where it is installed (extra ``mesh``), else by a z-buffer."""
    return _embree(triangles) if has_embree() else _z_buffer(triangles)


def render_surface(
    surface: ObjectSurface,
    camera: Camera,
    light: Light | None,
    size: int,
    supersample: int = 2,
    find: FaceFinder | None = None,
    between: Callable[[], None] | None = None,
) -> UInt8[np.ndarray, "views size size 4"]:
    """RGBA pictures with straight alpha: color is the mean of what is covered, 0 where nothing is.

    Args:
        surface: seen from both sides of its triangles; they count as flat.
        camera: a batch of perspective cameras outside the surface's box.
        light: shades what has no light of its own; plain colors if None.
        size: pixels along a side.
        supersample: rays along a side of a pixel, evenly spaced.
        find: what a camera sees of the triangles, `face_finder` of them if not given.
        between: called before each view; may raise.
    """
    triangles = surface.triangles
    find = find or face_finder(triangles)
    shade = None if surface.has_light else light
    pictures = np.zeros((len(camera.intrinsics), size, size, 4), dtype=np.uint8)
    for view in range(len(pictures)):
        if between is not None:
            between()
        seen = find(camera[view], size * supersample)
        colors = np.zeros((*seen.shape, 3))
        places = np.argwhere(seen >= 0)
        for start in range(0, len(places), _BLOCK):
            rows, columns = places[start : start + _BLOCK].T
            faces = seen[rows, columns]
            origin, ways = _rays(camera[view], rows, columns, seen.shape[0])
            colors[rows, columns] = _colors(surface, triangles, faces, origin, ways, shade)
        pictures[view] = _averaged(colors, seen >= 0, supersample)
    return pictures


def _averaged(
    colors: Float[np.ndarray, "fine fine 3"], hit: np.ndarray, factor: int
) -> UInt8[np.ndarray, "size size 4"]:
    size = len(hit) // factor
    blocks = (size, factor, size, factor)
    count = hit.reshape(blocks).sum(axis=(1, 3))
    total = colors.reshape(*blocks, 3).sum(axis=(1, 3))
    straight = total / np.maximum(count, 1)[..., None]
    both = np.concatenate([straight, (count / factor**2)[..., None]], axis=2)
    return np.rint(both.clip(0, 1) * 255).astype(np.uint8)


def _rays(
    camera: Camera, rows: np.ndarray, columns: np.ndarray, size: int
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "n 3"]]:
    """Origin and unit directions of the rays through the middles of pixels."""
    uv = (np.stack([columns, rows], axis=1) + 0.5) / size
    rays = camera_rays(camera, torch.from_numpy(uv).to(camera.intrinsics.dtype))
    return camera.position.double().numpy(), rays.directions.double().numpy()


def _colors(
    surface: ObjectSurface,
    triangles: np.ndarray,
    faces: np.ndarray,
    origin: np.ndarray,
    ways: np.ndarray,
    light: Light | None,
) -> Float[np.ndarray, "n 3"]:
    """What rays see of the triangles that they meet, sRGB."""
    corners = triangles[faces]
    shares = _shares(corners, origin, ways)
    colors = np.empty((len(faces), 3))
    first = 0
    for part in surface.parts:
        here = (faces >= first) & (faces < first + len(part.triangles))
        if here.any():
            colors[here] = part.colors_at(faces[here] - first, shares[here])
        first += len(part.triangles)
    if light is None:
        return colors
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-30)
    normals *= np.where((normals * ways).sum(axis=1, keepdims=True) > 0, -1.0, 1.0)
    ambient = light.ambient * (1 - _SKY + _SKY * normals[:, 1])
    direct = (1 - light.ambient) * (normals @ np.array(light.sun)).clip(0)
    return (light.gain * colors * (ambient + direct)[:, None]).clip(0, 1)


def _shares(corners: np.ndarray, origin: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Of a triangle's corners where a ray meets its plane (Moeller and Trumbore 1997)."""
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    across = np.cross(ways, two)
    scale = (one * across).sum(axis=1)
    scale = np.where(np.abs(scale) < 1e-30, 1e-30, scale)
    away = origin - corners[:, 0]
    second = (away * across).sum(axis=1) / scale
    third = (ways * np.cross(away, one)).sum(axis=1) / scale
    # a ray along an edge may miss by rounding what Embree, in float32, has hit
    shares = np.stack([1 - second - third, second, third], axis=1).clip(0, 1)
    return shares / shares.sum(axis=1, keepdims=True)


def _embree(triangles: Float[np.ndarray, "faces 3 3"]) -> FaceFinder:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    single = np.ascontiguousarray(triangles, dtype=np.float32)
    mesh = TriangleMesh(scene, single)

    def find(camera: Camera, size: int) -> Int[np.ndarray, "size size"]:
        # the scene lives on what the mesh holds
        assert mesh is not None
        seen = np.full((size, size), -1, dtype=np.int64)
        low, high = _window(camera, triangles, size)
        rows_at_once = max(1, _BLOCK // max(1, high[0] - low[0]))
        for top in range(low[1], high[1], rows_at_once):
            bottom = min(top + rows_at_once, high[1])
            rows, columns = np.mgrid[top:bottom, low[0] : high[0]].reshape(2, -1)
            origin, ways = _rays(camera, rows, columns, size)
            origins = np.broadcast_to(origin, ways.shape).astype(np.float32)
            seen[rows, columns] = scene.run(origins, ways.astype(np.float32))
        return seen

    return find


def _window(camera: Camera, triangles: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel, excluded, of the columns and rows that can see the triangles."""
    corners = torch.from_numpy(triangles.reshape(-1, 3)).to(camera.intrinsics.dtype)
    uv, depth = camera.project(corners)
    if float(depth.min()) <= 0:
        return np.array([0, 0]), np.array([size, size])
    low = np.floor((uv.amin(0).numpy() - _SURE) * size - 1)
    high = np.ceil((uv.amax(0).numpy() + _SURE) * size + 1)
    return low.clip(0, size).astype(int), high.clip(0, size).astype(int)


def _z_buffer(triangles: Float[np.ndarray, "faces 3 3"]) -> FaceFinder:
    vertices = torch.from_numpy(np.ascontiguousarray(triangles)).reshape(-1, 3)
    faces = torch.arange(len(vertices)).reshape(-1, 3)

    def find(camera: Camera, size: int) -> Int[np.ndarray, "size size"]:
        single = Camera(
            camera_to_world=camera.camera_to_world[None], intrinsics=camera.intrinsics[None]
        )
        return rasterize(vertices, faces, single, size, size).face[0].numpy()

    return find
