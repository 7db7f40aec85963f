"""True cameras for a scene made with an assumed field of view and relative disparity.

A scene reconstructed under an assumed focal length f, with a disparity d' that is the true one only
up to scale and shift (d' = a d* + b, a > 0), differs from the true scene (focal f*, disparity
d* = 1/z*) by one projective map of space. The same pixel lies at (x*, y*, z*) in the true space and
at X = (1/d') (u/f, v/f, 1) in the assumed one; inserting u = f* x*/z* and k = f*/f gives

    x = k x* / w,   y = k y* / w,   z = z* / w,   w = a + b z*.

Lines stay lines, so true cameras render the assumed field by sampling their own rays, warping the
points, and measuring interval lengths between warped points. A `Frame` holds the numbers of this
map; it can be changed after training.

    frame = Frame(focal_true=1.2, a=1.7, b=0.06)
    assumed = frame.warp(points)         # where the field knows what is at these true points
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

DEFAULT_FOCAL = 1.0 / math.tan(math.radians(25.0))
"""Focal length in half-widths of the field of view assumed by default, 50 degrees."""
_SMALLEST = 1e-6
"""Least w, and least share of the true disparity in the assumed one, that the map divides by."""
_HUBER = 1.345
"""Huber's threshold in standard deviations: 95 % efficient on Gaussian errors."""
_ROBUST_STEPS = 10
"""Re-weightings of a robust fit; the weights have settled long before."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The projective map between the true scene and the scene as it was reconstructed.

    Both spaces are scene worlds: x right, y down, z forward from the canonical camera.
    """

    focal_assumed: float = DEFAULT_FOCAL
    """Focal length f the scene was made with, in half-widths: u = f x/z is in [-1, 1]."""
    focal_true: float = DEFAULT_FOCAL
    """Focal length f* of the lens that took the picture, in half-widths."""
    a: float = 1.0
    """Scale of disparity; only lengthens or shortens camera moves. Positive."""
    b: float = 0.0
    """Shift of disparity; brings the true infinity to the assumed depth 1/b."""
    d_near: float = 1.0
    """Assumed disparity where normalised disparity is 1."""
    d_far: float = 0.1
    """Assumed disparity where normalised disparity is 0; above 0 keeps the farthest finite."""

    def __post_init__(self) -> None:
        for name in ("focal_assumed", "focal_true", "a"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} is {value}; it must be positive")
        if not math.isfinite(self.b):
            raise ValueError(f"b is {self.b}; it must be finite")
        if not 0.0 <= self.d_far < self.d_near:
            raise ValueError(f"d_far {self.d_far} and d_near {self.d_near}: want 0 <= far < near")

    @property
    def focal_ratio(self) -> float:
        """K = f*/f."""
        return self.focal_true / self.focal_assumed

    @property
    def fov_true(self) -> float:
        """Radians across the width of the picture as the lens took it."""
        return 2.0 * math.atan(1.0 / self.focal_true)

    @property
    def fov_assumed(self) -> float:
        """Radians across the width of the picture as the scene was made."""
        return 2.0 * math.atan(1.0 / self.focal_assumed)

    @property
    def is_identity(self) -> bool:
        """Whether true and assumed space are the same."""
        return self.a == 1.0 and self.b == 0.0 and self.focal_true == self.focal_assumed

    def with_fov(self, fov: float) -> "Frame":
        """The same frame for a true field of view in radians across the width."""
        return replace(self, focal_true=1.0 / math.tan(0.5 * fov))

    def matrix(self, like: Tensor) -> Float[Tensor, "4 4"]:
        """H with X ~ H X* in homogeneous coordinates, in the precision and place of `like`."""
        k = self.focal_ratio
        rows = [[k, 0.0, 0.0, 0.0], [0.0, k, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
        return like.new_tensor([*rows, [0.0, 0.0, self.b, self.a]])

    def warp(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Assumed positions of true points.

        Defined where w > 0. With b < 0 true points beyond depth -a/b have none; they are sent
        extremely far away along their own direction.
        """
        w = (self.a + self.b * points[..., 2:]).clamp_min(_SMALLEST)
        k = self.focal_ratio
        return points * points.new_tensor([k, k, 1.0]) / w

    def unwarp(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """True positions of assumed points.

        Defined where the assumed disparity exceeds b; what lies at or beyond the true infinity is
        brought to an extremely large depth along its own direction.
        """
        scale = self.a / (1.0 - self.b * points[..., 2:]).clamp_min(_SMALLEST)
        k = self.focal_ratio
        return points * points.new_tensor([1.0 / k, 1.0 / k, 1.0]) * scale

    def true_depth(self, depth: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """True depth for an assumed one: a z / (1 - b z)."""
        return self.a * depth / (1.0 - self.b * depth).clamp_min(_SMALLEST)

    def assumed_depth(self, depth: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Assumed depth for a true one: z* / (a + b z*)."""
        return depth / (self.a + self.b * depth).clamp_min(_SMALLEST)

    def jacobian(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
        """Derivative of `warp` at true points; its determinant k^2 a / w^4 is positive.

        Row i holds the derivatives of the i-th assumed coordinate.
        """
        x, y, z = points.unbind(dim=-1)
        w = (self.a + self.b * z).clamp_min(_SMALLEST)
        k, zero = self.focal_ratio, torch.zeros_like(w)
        across, shear = k / w, -k * self.b / w**2
        rows = [
            torch.stack([across, zero, shear * x], dim=-1),
            torch.stack([zero, across, shear * y], dim=-1),
            torch.stack([zero, zero, self.a / w**2], dim=-1),
        ]
        return torch.stack(rows, dim=-2)

    def normalized_disparity(self, depth: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """(1/z - d_far) / (d_near - d_far) of assumed depths: 1 nearest, 0 farthest."""
        return (1.0 / depth - self.d_far) / (self.d_near - self.d_far)

    def depth_of_disparity(self, disparity: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Assumed depths of normalised disparities."""
        return 1.0 / (self.d_far + (self.d_near - self.d_far) * disparity)

    def view_coordinates(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """(f x/z, f y/z, normalised disparity) of assumed points in front of the camera.

        Inside the picture the first two are in [-1, 1], right and down. For true points call it on
        `warp(points)`: the result is (f* x*/z*, f* y*/z*, (a/z* + b - d_far)/(d_near - d_far)).
        """
        across = self.focal_assumed * points[..., :2] / points[..., 2:]
        return torch.cat([across, self.normalized_disparity(points[..., 2:])], dim=-1)

    def from_view_coordinates(
        self, coordinates: Float[Tensor, "*batch 3"]
    ) -> Float[Tensor, "*batch 3"]:
        """Assumed points of `view_coordinates`."""
        depth = self.depth_of_disparity(coordinates[..., 2:])
        return torch.cat([coordinates[..., :2] * depth / self.focal_assumed, depth], dim=-1)

    @staticmethod
    def fit(
        disparity_assumed: Float[Tensor, "*pixels"],
        disparity_true: Float[Tensor, "*pixels"],
        weights: Float[Tensor, "*pixels"] | None = None,
        robust: bool = False,
    ) -> tuple[float, float]:
        """(a, b) that bring a d* + b nearest to d' in (weighted) least squares.

        Args:
            disparity_assumed: d' of pixels, 1 / assumed depth.
            disparity_true: d* of the same pixels, 1 / true depth; must not all be the same.
            weights: at least 0; a pixel with weight 0 is left out.
            robust: weigh down what lies far from the line (Huber's weights, threshold from the
                median absolute deviation), for depth maps with gross errors.

        Raises:
            ValueError: the true disparities do not vary, so that no scale can be found.
        """
        target = disparity_assumed.detach().double().flatten()
        source = disparity_true.detach().double().flatten()
        base = torch.ones_like(source) if weights is None else weights.detach().double().flatten()
        kept = base > 0.0
        target, source, base = target[kept], source[kept], base[kept]
        a, b = _line(target, source, base)
        for _ in range(_ROBUST_STEPS if robust else 0):
            error = (target - a * source - b).abs()
            threshold = _HUBER * 1.4826 * float(error.median())
            if threshold == 0.0:
                break
            a, b = _line(target, source, base * (threshold / error.clamp_min(threshold)))
        return a, b


def _line(target: Tensor, source: Tensor, weights: Tensor) -> tuple[float, float]:
    total = weights.sum()
    mean_source = (weights * source).sum() / total
    mean_target = (weights * target).sum() / total
    spread = (weights * (source - mean_source) ** 2).sum()
    if not float(spread) > 1e-24 * float(total * (1.0 + mean_source**2)):
        raise ValueError(
            f"disparity_true does not vary over {source.numel()} weighted pixels; no scale fits"
        )
    a = float((weights * (source - mean_source) * (target - mean_target)).sum() / spread)
    return a, float(mean_target) - a * float(mean_source)
