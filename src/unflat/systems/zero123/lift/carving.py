"""The solid that silhouettes carve out together, painted by the views that see it."""

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.geometry.hull import HALF_BOX, cell_centers, mattes_at, voted
from unflat.systems.zero123.lift.shots import Shots
from unflat.systems.zero123.lift.solid import Solid, seen_by, signed_distances

_COARSE = 32  # voxels along a side of the box that is looked through first
_LOOSE = 1.25  # times the usual box: cameras may stand somewhat nearer than is thought
_MARGIN = 3  # voxels around the object
_OUTVOTED = (0.0, 0.05, 0.1, 0.17, 0.25)  # shares of the weight that are tried
_ENOUGH = 0.004  # of IoU by which a hull of more outvoted views must be better
_FINEST = 0.7  # pixels: side of the smallest voxels that pictures can tell apart
_PLAIN = 0.6  # gray of what no view sees


def carved(shots: Shots, resolution: int) -> Solid:
    """A solid where most of the silhouettes have matter, with mean colours.

    How much weight may be outvoted is chosen by how well the hull's own silhouettes meet those
    that are given: none, if they agree.

    Args:
        shots: weighed.
        resolution: voxels along the longest side of the object's box; fewer where these would be
            much finer than the pictures.

    Raises:
        UserError: silhouettes are empty, or have nothing in common.
    """
    loose = shots.image.new_tensor([[-_LOOSE * HALF_BOX] * 3, [_LOOSE * HALF_BOX] * 3])
    points = cell_centers(loose, (_COARSE, _COARSE, _COARSE))
    values = mattes_at(shots.opacity, shots.cameras, points.reshape(-1, 3))
    outvoted = _outvoted(values, shots, loose)
    coarse = voted(values, shots.weight, outvoted).view(_COARSE, _COARSE, _COARSE)
    if not bool((coarse > 0.5).any()):
        raise UserError(
            "lift: the silhouettes of the views have no solid in common; try another seed, "
            "--elevation, or a picture in which the object stands out from its background."
        )
    pixel = float((shots.cameras.position.norm(dim=-1) / shots.cameras.intrinsics[:, 0]).mean())
    bounds, counts = _box(points[coarse > 0.25], loose, resolution, _FINEST * pixel / shots.side)
    cells = cell_centers(bounds, counts)
    found = voted(
        mattes_at(shots.opacity, shots.cameras, cells.reshape(-1, 3)), shots.weight, outvoted
    ).view(counts)
    if not bool((found > 0.5).any()):  # thinner than a voxel
        found = found + (0.51 - found.max())
    cell = float(bounds[1, 0] - bounds[0, 0]) / counts[2]
    distances = signed_distances(found, 0.5, cell)
    plain = torch.full((3, *counts), _PLAIN)
    solid = Solid(distances, plain.to(distances), bounds)
    return Solid(distances, painted(solid, shots), bounds)


@torch.no_grad()
def painted(solid: Solid, shots: Shots) -> Float[Tensor, "3 z y x"]:
    """Colours of a solid's voxels: means over the views that see them, by weight.

    A voxel within two voxels of where a view's light ends is seen by it. What no view sees has the
    mean colour of the rest.

    Args:
        solid: whose colours do not matter.
        shots: weighed.
    """
    shape = solid.start.shape[1:]
    points = cell_centers(solid.bounds, (shape[0], shape[1], shape[2])).reshape(-1, 3)
    field = solid.field(solid.cell)
    close = (field.distances[0].flatten().abs() < 4 * solid.cell).nonzero().flatten()
    some = points[close]
    total, share = some.new_zeros(len(some), 3), some.new_zeros(len(some), 1)
    for view in range(len(shots.image)):
        camera = shots.cameras[view : view + 1]
        seen = seen_by(field, camera, shots.side)
        end = seen.distance / seen.opacity.clamp_min(1e-3)
        image, there = shots.image[view : view + 1], shots.opacity[view : view + 1]
        near = mattes_at(end, camera, some)[0]
        known = mattes_at(there, camera, some)[0]
        behind = (some - camera.position).norm(dim=-1) - near
        trust = shots.weight[view] * (behind.abs() < 2 * solid.cell) * (known > 0.9)
        color = torch.stack([mattes_at(image[:, k], camera, some)[0] for k in range(3)], dim=-1)
        total += trust[:, None] * color
        share += trust[:, None]
    mean = total.sum(0) / share.sum().clamp_min(1e-6)
    colors = mean.expand(len(points), 3).clone()
    colors[close] = (total + 1e-3 * mean) / (share + 1e-3)
    return colors.mT.reshape(3, *shape)


def _outvoted(values: Float[Tensor, "views n"], shots: Shots, bounds: Tensor) -> float:
    """Weight that may be outvoted; never that of the first view."""
    total = float(shots.weight.sum())
    most = 0.99 * float(shots.weight[0])
    best, best_iou = 0.0, -1.0
    for share in _OUTVOTED:
        outvoted = min(share * total, most)
        hull = voted(values, shots.weight, outvoted).view(_COARSE, _COARSE, _COARSE)
        iou = _outline_iou(hull, shots, bounds)
        if iou > best_iou + _ENOUGH:
            best, best_iou = outvoted, iou
    return best


@torch.no_grad()
def _outline_iou(hull: Float[Tensor, "z y x"], shots: Shots, bounds: Tensor) -> float:
    """Weighted mean over views of how well the hull's silhouettes meet theirs."""
    cell = float(bounds[1, 0] - bounds[0, 0]) / _COARSE
    solid = Solid(signed_distances(hull, 0.5, cell), torch.full((3, *hull.shape), _PLAIN), bounds)
    side = min(_COARSE, shots.side)
    drawn = seen_by(solid.field(0.5 * cell), shots.cameras, side).opacity
    given = torch.nn.functional.adaptive_avg_pool2d(shots.opacity[:, None], side)[:, 0]
    both = torch.minimum(drawn, given).sum((1, 2))
    either = torch.maximum(drawn, given).sum((1, 2)).clamp_min(1e-6)
    return float((shots.weight * both / either).sum() / shots.weight.sum())


def _box(
    points: Float[Tensor, "n 3"], loose: Float[Tensor, "2 3"], resolution: int, finest: float
) -> tuple[Float[Tensor, "2 3"], tuple[int, int, int]]:
    """A box of cubic cells about some points, with a margin, and its cells along z, y and x."""
    half = 0.5 * float(loose[1, 0] - loose[0, 0]) / _COARSE
    low, high = points.amin(0) - half, points.amax(0) + half
    cell = max(finest, float((high - low).max()) / (resolution - 2 * _MARGIN))
    counts = ((high - low) / cell).ceil().long() + 2 * _MARGIN
    middle = 0.5 * (low + high)
    bounds = torch.stack([middle - 0.5 * cell * counts, middle + 0.5 * cell * counts])
    x, y, z = counts.tolist()
    return bounds, (z, y, x)
