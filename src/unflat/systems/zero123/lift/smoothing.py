"""What is left of views that do not quite agree: rough surfaces and dotted colours, made even.

solid = smoothed(solid, shots)             # before its level is chosen, which mends what shrank
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.hull import cell_centers, mattes_at
from unflat.systems.zero123.lift.shots import Shots
from unflat.systems.zero123.lift.solid import Solid, seen_by

_SHAPE = 0.4, 1.4  # voxels: deviation of the blur of distances, of true views and doubtful ones
_AGREEING, _DOUBTFUL = 0.98, 0.93  # mean agreements of views that are such
_COLOR = 1.5  # voxels: that of colours which the picture does not show
_FAR = 3.0  # voxels: distances beyond do not pull at the surface
_NEAR = 1.5  # voxels from the surface at which colours count less
_LEAST = 1e-4  # what colours count that nobody has looked at


@torch.no_grad()
def smoothed(solid: Solid, shots: Shots, agreement: float = 1.0) -> Solid:
    """The solid with an even surface, and even colours where the first shot does not show it.

    Distances are blurred by half a voxel, by more if views agree less. Colours are means of their
    neighbours' by how near these are to the surface, as what lies deep inside was never seen.

    Args:
        solid: with distances that may be rough.
        shots: the first is the picture, whose colours are kept.
        agreement: mean over the views it was fitted to, as of `unflat.geometry.hull.agreement`.
    """
    doubt = min(max((_AGREEING - agreement) / (_AGREEING - _DOUBTFUL), 0.0), 1.0)
    least, most = _SHAPE
    cell = solid.cell
    near = solid.distances().clamp(-_FAR * cell, _FAR * cell)
    distances = _blurred(near[None], least + doubt * (most - least))[0]
    weight = torch.exp(-0.5 * (distances / (_NEAR * cell)).square()) + _LEAST
    colors = solid.colors()
    even = _blurred(colors * weight, _COLOR) / _blurred(weight[None], _COLOR)
    shown = _blurred(_shown(Solid(distances, colors, solid.bounds), shots)[None], 1.0)
    return Solid(distances, even + shown * (colors - even), solid.bounds)


def _shown(solid: Solid, shots: Shots) -> Float[Tensor, "z y x"]:
    """1 where the first shot's light ends within two voxels, else 0."""
    shape = solid.start.shape[1:]
    points = cell_centers(solid.bounds, (shape[0], shape[1], shape[2])).reshape(-1, 3)
    camera = shots.cameras[:1]
    seen = seen_by(solid.field(0.5 * solid.cell), camera, shots.side)
    end = mattes_at(seen.distance / seen.opacity.clamp_min(1e-3), camera, points)[0]
    there = mattes_at(shots.opacity[:1], camera, points)[0] > 0.9
    behind = (points - camera.position).norm(dim=-1) - end
    return (there & (behind.abs() < 2 * solid.cell)).to(points).view(shape)


def _blurred(values: Float[Tensor, "channels z y x"], deviation: float) -> Tensor:
    from scipy.ndimage import gaussian_filter

    grid = values.cpu().numpy()
    found = gaussian_filter(grid, (0, deviation, deviation, deviation), mode="nearest")
    return torch.from_numpy(np.asarray(found)).to(values)
