"""A layered depth picture: what the canonical camera sees, and what lies behind it.

Meshes, splats and the viewer are all made from a list of layers, front first.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unflat.geometry.camera import Camera

_PLANE_SHARE = 0.5
"""A step this much larger than the slope around it is a cut, a smaller one is a slanted plane."""
_SLOPE_WINDOW = 7
"""Differences whose median is the slope around a step; outvotes ramps of up to 3 pixels."""


@dataclass(frozen=True)
class Layer:
    """One depth picture at the canonical camera.

    Attributes:
        rgb: sRGB in [0, 1].
        depth: along the canonical optical axis, above 0 where ``mask`` holds, world units.
        mask: where this layer has a surface.
    """

    rgb: Float[Tensor, "height width 3"]
    depth: Float[Tensor, "height width"]
    mask: Bool[Tensor, "height width"]


def surface_mask(layer: Layer) -> Bool[np.ndarray, "height width"]:
    """Pixels with a surface that can be drawn: masked in, at a finite depth above 0."""
    return (layer.mask & torch.isfinite(layer.depth) & (layer.depth > 0)).detach().cpu().numpy()


def layer_points(layer: Layer, camera: Camera) -> Float[Tensor, "height width 3"]:
    """World points of the pixel centres of a layer; pixels without a surface lie at depth 1.

    Args:
        layer: seen by ``camera``.
        camera: one camera, with or without a batch axis of 1.
    """
    height, width = layer.depth.shape
    there = torch.from_numpy(surface_mask(layer))
    depth = layer.depth.detach().cpu().double()
    depth = torch.where(there, depth, torch.ones_like(depth))
    v, u = torch.meshgrid(
        (torch.arange(height, dtype=torch.float64) + 0.5) / height,
        (torch.arange(width, dtype=torch.float64) + 0.5) / width,
        indexing="ij",
    )
    fx, fy, cx, cy = camera.intrinsics.detach().cpu().double().reshape(4).unbind()
    x, y = (u - cx) / fx, (v - cy) / fy
    if camera.kind == "perspective":
        x, y = x * depth, y * depth
    pose = camera.camera_to_world.detach().cpu().double().reshape(4, 4)
    local = torch.stack([x, y, depth], dim=-1)
    return (local @ pose[:3, :3].T + pose[:3, 3]).to(layer.depth.dtype)


def disparity_jumps(
    disparity: Float[np.ndarray, "height width"],
    mask: Bool[np.ndarray, "height width"],
    jump: float,
) -> tuple[Bool[np.ndarray, "height width-1"], Bool[np.ndarray, "height-1 width"]]:
    """Where the surface breaks: between a pixel and its right neighbour, and its lower one.

    A break is a step of more than ``jump`` times the larger disparity that the slope around it
    does not explain. (A plane is linear in disparity, so that a floor stays whole up to its
    horizon, where even its even slope makes large relative steps.) Edges at masked-out pixels
    are no breaks; the mask tells them.

    Args:
        disparity: 1 / depth, above 0 where ``mask`` holds.
        mask: where there is a surface.
        jump: relative step, as in 0.1.
    """
    right = _jumps_along_rows(disparity, mask, jump)
    down = _jumps_along_rows(disparity.T, mask.T, jump).T
    return right, down


def _jumps_along_rows(
    disparity: Float[np.ndarray, "rows columns"],
    mask: Bool[np.ndarray, "rows columns"],
    jump: float,
) -> np.ndarray:
    step = np.diff(disparity, axis=1)
    both = mask[:, 1:] & mask[:, :-1]
    limit = jump * np.maximum(disparity[:, 1:], disparity[:, :-1])
    cuts = both & (np.abs(step) > limit)
    rows, columns = np.nonzero(cuts)
    if rows.size == 0:
        return cuts
    offsets = np.arange(_SLOPE_WINDOW) - _SLOPE_WINDOW // 2
    near = columns[:, None] + offsets
    inside = (near >= 0) & (near < step.shape[1])
    near = near.clip(0, step.shape[1] - 1)
    window = np.where(inside & both[rows[:, None], near], step[rows[:, None], near], np.nan)
    slope = np.nanmedian(window, axis=1)
    here = step[rows, columns]
    cuts[rows, columns] = np.abs(here - slope) > _PLANE_SHARE * np.abs(here)
    return cuts
