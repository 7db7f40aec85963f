"""Do several views show one scene: colors carried from view to view by their depth.

No truth is needed, so nothing here says that a scene is right. Views of a picture on a wall agree,
and so do views of nothing: read these figures beside one of geometry.

>>> import torch
>>> picture, depth = torch.rand(1, 3, 8, 8), torch.full((1, 8, 8), 2.0)
>>> camera = Camera.from_fov(0.8)
>>> result = reprojection_error(picture, depth, camera, picture, depth, camera)
>>> result.error.item() < 1e-6, result.validity.item()
(True, 1.0)
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unflat.geometry import Camera, pixel_grid
from unflat.metrics.checks import refuse_pictures
from unflat.metrics.image import psnr
from unflat.rendering import Warped, forward_warp

LEAST_VALIDITY = 0.5
"""A reprojection error over a smaller share of the pixels is void."""

Warp = Callable[[Tensor, Tensor, Camera, Camera], Warped]
"""Image, inverse depth, camera from, camera to: as `unflat.rendering.forward_warp`."""


class Reprojection(NamedTuple):
    """How well one view explains another, a value for each pair."""

    error: Float[Tensor, " batch"]
    """Mean absolute difference of colors over valid pixels, in the images' unit; lower is better.

    NaN where none is valid."""
    validity: Float[Tensor, " batch"]
    """Valid pixels over those with a surface, in [0, 1]; 0 where there is none. Name it."""

    @property
    def is_void(self) -> Bool[Tensor, " batch"]:
        """Whether too few pixels are valid (`LEAST_VALIDITY`) for the error to mean anything."""
        return self.validity < LEAST_VALIDITY


class DepthAgreement(NamedTuple):
    """How well the depths of one view fit those of another, a value for each pair."""

    agreement: Float[Tensor, " batch"]
    """Pixels that agree over those compared, in [0, 1]; higher is better. NaN where none is."""
    error: Float[Tensor, " batch"]
    """Mean of |carried depth - depth there| / depth there, of compared pixels that land on a
    surface; lower is better. NaN where none does."""
    compared: Float[Tensor, " batch"]
    """Compared pixels over those with a surface, in [0, 1]; 0 where there is none. Name it."""


class Cycle(NamedTuple):
    """What is left of a picture after a warp there and back."""

    psnr: Float[Tensor, " batch"]
    """In dB over valid pixels; higher is better; NaN where none is valid."""
    validity: Float[Tensor, " batch"]
    """Pixels of the picture that were seen both ways, in [0, 1]."""


def reprojection_error(
    image_a: Float[Tensor, "batch channels height width"],
    depth_a: Float[Tensor, "batch height width"],
    camera_a: Camera,
    image_b: Float[Tensor, "batch channels height_b width_b"],
    depth_b: Float[Tensor, "batch height_b width_b"],
    camera_b: Camera,
    tolerance: float = 0.05,
) -> Reprojection:
    """Color difference between a view and another one looked up through the first one's depth.

    Every pixel of a with a surface is carried to b by its depth. It is valid if it falls between
    pixel centers of b, and if b's own depth there is the carried one up to the tolerance: what is
    hidden in b is left out, and so is what b sees through, which lowers the validity share. After
    the warping error of EG3D and its successors; for both directions average the two calls.

    Looked up bilinearly where b's four pixels around lie within the tolerance of each other (in
    inverse depth for perspective cameras, which is exact on planes), else at the nearest pixel,
    so that colors and depths do not mix over edges.

    Args:
        image_a: in [0, 1].
        depth_a: along the optical axis, in world units; no surface where not above 0 or infinite.
        camera_a: one for each picture, or one for all.
        image_b: the other view, in [0, 1].
        depth_b: its depth; no surface where not above 0 or infinite.
        camera_b: its camera.
        tolerance: of depths, relative to the depth in b.

    Raises:
        ValueError: NaN in a picture or a depth map (the picture is named).
    """
    for name, maps in zip(
        ("image_a", "image_b", "depth_a", "depth_b"),
        (image_a, image_b, depth_a, depth_b),
        strict=True,
    ):
        refuse_pictures(maps.isnan().flatten(1).any(1), f"{name} holds NaN in picture")
    batch, channels = image_a.shape[:2]
    surface, uv_b, carried = _carry(depth_a, camera_a, camera_b)
    seen = _look_up(image_b.double(), depth_b.double(), uv_b, camera_b.kind, tolerance)
    agrees = (carried - seen.depth).abs() <= tolerance * seen.depth
    valid = surface & seen.inside & agrees & (carried > 0)
    difference = (image_a.double().reshape(batch, channels, -1) - seen.colors).abs().mean(1)
    count = valid.sum(1)
    error = difference.where(valid, 0.0).sum(1) / count  # 0 / 0 is the NaN of nothing valid
    return Reprojection(error.float(), (count / surface.sum(1).clamp_min(1)).float())


def depth_agreement(
    depth_a: Float[Tensor, "batch height width"],
    camera_a: Camera,
    depth_b: Float[Tensor, "batch height_b width_b"],
    camera_b: Camera,
    tolerance: float = 0.05,
) -> DepthAgreement:
    """Whether the surface that one view shows is where another view shows it.

    Every pixel of a with a surface is carried to b by its depth, and compared with b's depth at the
    four pixels around the place where it falls. It agrees if its carried depth is that of one of
    them up to the tolerance; it contradicts b if it is nearer than all of them, since b then looks
    through it (also where b has no surface at all). Between those it lies behind b's surface,
    hidden, which is no contradiction: such pixels are not compared, nor those that fall outside b's
    picture. So two views of a solid agree everywhere, however much of it they share, and pictures
    that turn with their camera contradict each other on the side that comes nearer.

    What is hidden one way contradicts the other way if the depths are wrong: call both ways.

    Args:
        depth_a: along the optical axis, in world units; no surface where not above 0 or infinite.
        camera_a: one for each map, or one for all.
        depth_b: the other view's depth; no surface where not above 0 or infinite.
        camera_b: its camera.
        tolerance: of depths, relative to the depth in b.

    Raises:
        ValueError: NaN in a depth map (the picture is named).
    """
    for name, maps in {"depth_a": depth_a, "depth_b": depth_b}.items():
        refuse_pictures(maps.isnan().flatten(1).any(1), f"{name} holds NaN in picture")
    surface, uv_b, carried = _carry(depth_a, camera_a, camera_b)
    there = depth_b.double()
    there = torch.where((there > 0) & there.isfinite(), there, torch.inf)
    place = _around(uv_b, there.shape[-2], there.shape[-1])
    depths = there.flatten(1)[:, None].expand(-1, 4, -1).gather(2, place.pixels)  # batch 4 n
    off = (carried[:, None] - depths) / depths
    off = off.where(depths.isfinite(), -torch.inf)  # in front of nothing
    agrees = (off.abs() <= tolerance).any(1)
    compared = (agrees | (off < -tolerance).all(1)) & surface & place.inside & (carried > 0)
    agrees = agrees & compared
    nearest = off.abs().amin(1)
    landed = compared & nearest.isfinite()
    return DepthAgreement(
        (agrees.sum(1) / compared.sum(1)).float(),  # 0 / 0 is the NaN of nothing compared
        (nearest.where(landed, 0.0).sum(1) / landed.sum(1)).float(),
        (compared.sum(1) / surface.sum(1).clamp_min(1)).float(),
    )


def forward_backward_cycle(
    image: Float[Tensor, "batch channels height width"],
    disparity: Float[Tensor, "batch height width"],
    camera: Camera,
    there: Camera,
    warp: Warp = forward_warp,
) -> Cycle:
    """PSNR of a picture that was warped to another camera and back, over what was seen both ways.

    The way back uses the colors and the inverse depth that arrived there. Valid are pixels that
    something landed on both times; what filled a hole there does not count. It measures the warp's
    resampling and how depth survives it, so compare equal warps alone.

    Args:
        image: in [0, 1].
        disparity: 1 / depth in the first camera, 1 / world units; 0 is infinitely far.
        camera: of the picture.
        there: the one between.
        warp: moves a picture with any channels; `forward_warp` if not given.

    Raises:
        ValueError: NaN in the picture (it is named).
    """
    away = warp(image, disparity, camera, there)
    marked = torch.cat([away.image, away.visible[:, None].to(image.dtype)], dim=1)
    back = warp(marked, away.inverse_depth, there, camera)
    whole = back.image[:, -1] > 1 - 1e-4  # a blend with a hole's color is not valid
    valid = back.visible & whole
    return Cycle(psnr(back.image[:, :-1], image, valid[:, None]), valid.flatten(1).float().mean(1))


class _Seen(NamedTuple):
    """What a view shows at picture coordinates."""

    colors: Float[Tensor, "batch channels n"]
    depth: Float[Tensor, "batch n"]  # 0 where there is no surface
    inside: Bool[Tensor, "batch n"]


class _Around(NamedTuple):
    """The four pixels around picture coordinates."""

    pixels: Int[Tensor, "batch 4 n"]  # row * width + column
    weights: Float[Tensor, "batch 4 n"]  # bilinear, sum 1
    inside: Bool[Tensor, "batch n"]


def _carry(depth: Tensor, start: Camera, end: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """Where pixels have a surface, and where it falls in another view: (u, v) and depth."""
    batch, height, width = depth.shape
    depth = depth.double().reshape(batch, -1)
    surface = (depth > 0) & depth.isfinite()
    uv = pixel_grid(height, width, device=depth.device, dtype=depth.dtype).reshape(1, -1, 2)
    start, end = (camera.to(depth.device, depth.dtype) for camera in (start, end))
    points = start.unproject(uv.expand(batch, -1, 2), depth.where(surface, 1.0))
    return surface, *end.project(points)


def _around(uv: Tensor, height: int, width: int) -> _Around:
    size = uv.new_tensor([width, height])
    place = uv * size - 0.5  # in pixels from the first center
    # rounding may put a point that belongs on the outermost centers just outside
    inside = ((place > -1e-6) & (place < size - 1 + 1e-6)).all(-1)
    place = torch.where(inside[..., None], place, 0.0)
    corner = torch.minimum(place.floor().clamp_min(0), (size - 2).clamp_min(0)).long()
    across, along = (place - corner).clamp(0, 1).unbind(-1)
    weights = torch.stack(
        [(1 - across) * (1 - along), across * (1 - along), (1 - across) * along, across * along], 1
    )
    first = corner[..., 1] * width + corner[..., 0]
    right, below = min(1, width - 1), min(width, (height - 1) * width)
    pixels = torch.stack([first, first + right, first + below, first + right + below], 1)
    return _Around(pixels, weights, inside)


def _look_up(image: Tensor, depth: Tensor, uv: Tensor, kind: str, tolerance: float) -> _Seen:
    """Colors and depths between pixel centers; at the nearest pixel where depths disagree."""
    batch, channels, height, width = image.shape
    place = _around(uv, height, width)
    weights, around = place.weights, place.pixels
    flat = depth.reshape(batch, 1, -1).expand(-1, 4, -1)
    depths = flat.gather(2, around)
    surface = (depths > 0) & depths.isfinite()
    low, high = depths.amin(1), depths.amax(1)
    smooth = surface.all(1) & (high - low <= tolerance * low)
    nearest = torch.nn.functional.one_hot(weights.argmax(1), 4).mT.to(weights.dtype)
    weights = torch.where(smooth[:, None], weights, nearest)
    depths = depths.where(surface, 1.0)
    mixed = (weights * (1 / depths if kind == "perspective" else depths)).sum(1)
    found = 1 / mixed if kind == "perspective" else mixed
    found = found * (weights * surface).sum(1)  # the nearest may be one without a surface
    pixels = image.reshape(batch, channels, -1)
    colors = sum(
        pixels.gather(2, around[:, i, None].expand(-1, channels, -1)) * weights[:, i, None]
        for i in range(4)
    )
    return _Seen(torch.as_tensor(colors), found, place.inside)
