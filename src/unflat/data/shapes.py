"""Spheres, boxes, cylinders and planes with exact ray intersections, for scenes without a download.

Rays are ``origin + t * direction`` with directions of any length; `intersect` gives the smallest
t > 0, infinity where a ray misses. Arrays are float64 numpy: these scenes are what other code is
checked against.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray
_SMALLEST = 1e-6  # a ray does not hit the surface it starts on


@dataclass(frozen=True, kw_only=True)
class Texture:
    """Two colours in a pattern over world space, without any picture file."""

    first: tuple[float, float, float]
    """sRGB colour, [0, 1]."""
    second: tuple[float, float, float]
    """The other colour."""
    kind: Literal["plain", "checker", "stripes", "waves"] = "plain"
    """Plain shows `first` only."""
    size: float = 0.25
    """World units of one check, stripe or half wave."""

    def color(self, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        """Albedo at surface points."""
        # The small shift keeps faces that lie on whole multiples of the size off the pattern's
        # jumps, where rounding would decide between the two colours.
        scaled = points / self.size + 0.01234
        if self.kind == "checker":
            share = np.floor(scaled).sum(axis=1) % 2
        elif self.kind == "stripes":
            share = np.floor(scaled @ np.array([0.8, 0.5, 0.33])) % 2
        elif self.kind == "waves":
            phase = np.pi * scaled
            share = 0.5 + 0.5 * np.sin(phase[:, 0]) * np.sin(phase[:, 1] + phase[:, 2])
        else:
            share = np.zeros(len(points))
        first, second = np.array(self.first), np.array(self.second)
        return first + share[:, None] * (second - first)


@runtime_checkable
class Shape(Protocol):
    """A surface that rays can meet."""

    @property
    def texture(self) -> Texture:
        """Its colours."""
        ...

    def intersect(
        self, origins: Float[Array, "n 3"], directions: Float[Array, "n 3"]
    ) -> Float[Array, " n"]:
        """Smallest ray parameter above 0 at which each ray meets the surface; inf if it misses."""
        ...

    def normal(self, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        """Outward unit normals at surface points."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sphere:
    """A ball."""

    center: Float[Array, "3"]
    """World units."""
    radius: float
    """World units."""
    texture: Texture
    """Its colours."""

    def intersect(
        self, origins: Float[Array, "n 3"], directions: Float[Array, "n 3"]
    ) -> Float[Array, " n"]:
        """Nearest root of |o + t d - c|^2 = r^2 above 0."""
        offset = origins - self.center
        a = (directions**2).sum(axis=1)
        b = (offset * directions).sum(axis=1)
        c = (offset**2).sum(axis=1) - self.radius**2
        return _first_root(a, b, c)

    def normal(self, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        """Away from the centre."""
        return (points - self.center) / self.radius


@dataclass(frozen=True, kw_only=True)
class Plane:
    """An endless plane."""

    point: Float[Array, "3"]
    """Any point on it."""
    direction: Float[Array, "3"]
    """Its unit normal."""
    texture: Texture
    """Its colours."""

    def intersect(
        self, origins: Float[Array, "n 3"], directions: Float[Array, "n 3"]
    ) -> Float[Array, " n"]:
        """Where (o + t d - p) . n = 0."""
        speed = directions @ self.direction
        height = (self.point - origins) @ self.direction
        meets = np.abs(speed) > 1e-12
        distance = height / np.where(meets, speed, 1.0)
        return np.where(meets & (distance > _SMALLEST), distance, np.inf)

    def normal(self, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        """The same everywhere."""
        return np.broadcast_to(self.direction, points.shape)


@dataclass(frozen=True, kw_only=True)
class Box:
    """A cuboid in any orientation."""

    center: Float[Array, "3"]
    """World units."""
    half_size: Float[Array, "3"]
    """Half the edge lengths along its own axes, world units."""
    rotation: Float[Array, "3 3"]
    """Its own axes, as columns, in the world."""
    texture: Texture
    """Its colours."""

    def intersect(
        self, origins: Float[Array, "n 3"], directions: Float[Array, "n 3"]
    ) -> Float[Array, " n"]:
        """Slab method: the latest entry, if it comes before the earliest exit."""
        local = (origins - self.center) @ self.rotation
        speed = directions @ self.rotation
        speed = np.where(np.abs(speed) < 1e-12, 1e-12, speed)  # parallel: far beyond any slab
        low = (-self.half_size - local) / speed
        high = (self.half_size - local) / speed
        entry = np.minimum(low, high).max(axis=1)
        leave = np.maximum(low, high).min(axis=1)
        first = np.where(entry > _SMALLEST, entry, leave)
        return np.where((entry <= leave) & (first > _SMALLEST), first, np.inf)

    def normal(self, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        """Of the face on which a point lies."""
        local = (points - self.center) @ self.rotation / self.half_size
        axis = np.abs(local).argmax(axis=1)
        rows = np.arange(len(points))
        return self.rotation[:, axis].T * np.sign(local[rows, axis])[:, None]


@dataclass(frozen=True, kw_only=True)
class Cylinder:
    """An upright cylinder (along z) with flat ends."""

    center: Float[Array, "3"]
    """Its middle, world units."""
    radius: float
    """World units."""
    half_height: float
    """World units."""
    texture: Texture
    """Its colours."""

    def intersect(
        self, origins: Float[Array, "n 3"], directions: Float[Array, "n 3"]
    ) -> Float[Array, " n"]:
        """The nearer of its side, between the ends, and its ends, within the radius."""
        offset = origins - self.center
        flat, speed = offset[:, :2], directions[:, :2]
        a = np.maximum((speed**2).sum(axis=1), 1e-18)
        b, c = (flat * speed).sum(axis=1), (flat**2).sum(axis=1) - self.radius**2
        best = np.full(len(origins), np.inf)
        for sign in (-1.0, 1.0):
            root = _root(a, b, c, sign)
            height = offset[:, 2] + np.where(np.isfinite(root), root, 0.0) * directions[:, 2]
            best = np.minimum(best, np.where(np.abs(height) <= self.half_height, root, np.inf))
            climb = directions[:, 2]
            climbs = np.abs(climb) > 1e-12
            cap = (sign * self.half_height - offset[:, 2]) / np.where(climbs, climb, 1.0)
            reach = ((flat + cap[:, None] * speed) ** 2).sum(axis=1)
            hits = climbs & (cap > _SMALLEST) & (reach <= self.radius**2)
            best = np.minimum(best, np.where(hits, cap, np.inf))
        return best

    def normal(self, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
        """Sideways on the side, up and down on the ends."""
        local = points - self.center
        is_end = np.abs(local[:, 2]) / self.half_height > np.hypot(*local[:, :2].T) / self.radius
        side = local * np.array([1.0, 1.0, 0.0]) / self.radius
        end = np.sign(local[:, 2:]) * np.array([0.0, 0.0, 1.0])
        return np.where(is_end[:, None], end, side)


def first_hits(
    shapes: Sequence[Shape], origins: Float[Array, "n 3"], directions: Float[Array, "n 3"]
) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    """Parameter of each ray's first surface (inf: none) and the number of its shape (-1: none)."""
    hits = np.stack([shape.intersect(origins, directions) for shape in shapes])
    which = hits.argmin(axis=0)
    depth = hits[which, np.arange(len(which))]
    return depth, np.where(np.isfinite(depth), which, -1)


def facing_normals(
    shapes: Sequence[Shape],
    origins: Float[Array, "n 3"],
    directions: Float[Array, "n 3"],
    depth: Float[Array, " n"],
    which: Int[Array, " n"],
) -> Float[Array, "n 3"]:
    """Unit normals turned to where the rays of `first_hits` came from; 0 where they met nothing."""
    normals = np.zeros_like(directions)
    for number, shape in enumerate(shapes):
        here = which == number
        if here.any():
            points = origins[here] + depth[here, None] * directions[here]
            outward = shape.normal(points)
            away = (outward * directions[here]).sum(axis=1, keepdims=True) > 0
            normals[here] = np.where(away, -outward, outward)
    return normals


def _root(a: Array, b: Array, c: Array, sign: float) -> Array:
    """One root of a t^2 + 2 b t + c = 0 above 0, else inf."""
    inside = b**2 - a * c
    root = (-b + sign * np.sqrt(np.maximum(inside, 0.0))) / a
    return np.where((inside >= 0) & (root > _SMALLEST), root, np.inf)


def _first_root(a: Array, b: Array, c: Array) -> Array:
    return np.minimum(_root(a, b, c, -1.0), _root(a, b, c, 1.0))
