"""First guesses at a pose from points and their pixels, many of them wrong: RANSAC over triples.

Three points and their pixels leave at most four poses of a perspective camera of known focal length
(Grunert 1841; Haralick et al., IJCV 1994, section 3), two of an orthographic one of unknown scale
(Huttenlocher and Ullman, IJCV 1990). Every drawn triple gives its poses, and all matches judge them
(Fischler and Bolles, CACM 1981) by Cauchy's loss rather than by a count. What is handed on are the
best ones that differ: an object seen almost flat has two answers, mirror twins in depth.
"""

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unflat.geometry.camera import length
from unflat.geometry.pnp_refine import Matches, Poses, residuals, robust_loss

_JUDGES = 128
"""Matches that judge every hypothesis."""
_SHORT_LIST = 256
"""Hypotheses among which different ones are looked for."""
_NEARLY_REAL = 0.01
"""Imaginary over real part of roots still taken: errors of the points make real ones complex."""


def start_poses(
    matches: Matches,
    focals: Float[Tensor, " guesses"] | None,
    draws: int,
    width: float,
    generator: torch.Generator,
) -> tuple[Poses, Float[Tensor, " poses"]]:
    """The poses of drawn triples and their loss; perhaps none.

    Args:
        matches: at least 3.
        focals: guesses in picture widths, tried in turn; None for an orthographic camera.
        draws: triples in all.
        width: of Cauchy's loss that judges them, in sizes of the object.
        generator: of the draws.
    """
    triples = _wide_triples(matches, draws, generator)
    points, seen = matches.points[triples], matches.seen[triples]
    if focals is None:
        focal, corners = None, orthographic_triangles(points, seen)
    else:
        focal = focals.repeat(-(-draws // len(focals)))[:draws]
        rays = torch.cat([seen, focal[:, None, None].expand(-1, 3, 1)], dim=-1)
        corners = perspective_triangles(points, rays / length(rays)[..., None])
    poses = _poses_of_triangles(points, seen, corners, focal)
    jury = matches.take(torch.randperm(len(matches.points), generator=generator)[:_JUDGES])
    widths = torch.full_like(poses.log_scale, width)
    return poses, robust_loss(residuals(poses, jury).squared, jury, widths)


def different(
    poses: Poses, loss: Float[Tensor, " poses"], keep: int, apart: float
) -> Int[Tensor, " kept"]:
    """Indices of the best poses whose rotations differ by at least an angle, best first.

    Args:
        poses: any number.
        loss: less is better; infinite ones are left out.
        keep: at most so many.
        apart: radians.
    """
    order = loss.argsort(stable=True)[:_SHORT_LIST]
    order = order[loss[order].isfinite()]
    rotations = poses.rotation[order].flatten(1)
    cosine = 0.5 * (rotations @ rotations.mT - 1.0)
    is_near = torch.acos(cosine.clamp(-1.0, 1.0)) < apart
    is_left = torch.ones_like(order, dtype=torch.bool)
    kept: list[int] = []
    while len(kept) < keep and bool(is_left.any()):
        best = int(is_left.int().argmax())
        kept.append(best)
        is_left &= ~is_near[best]
        is_left[best] = False
    return order[kept]


def perspective_triangles(
    points: Float[Tensor, "k 3 3"], rays: Float[Tensor, "k 3 3"]
) -> Float[Tensor, "k 4 3 3"]:
    """Where on three rays the corners of a triangle lie, in the camera's axes; NaN if nowhere.

    Grunert's solution as in Haralick et al.: the ratio of the third corner's distance to the
    first's is a root of a polynomial of degree 4.

    Args:
        points: the triangle's corners, in any axes.
        rays: unit directions from the camera to them.
    """
    first, second, third = points.unbind(dim=-2)
    aa, bb, cc = (
        ((p - q) ** 2).sum(dim=-1) for p, q in ((second, third), (first, third), (first, second))
    )
    ray_1, ray_2, ray_3 = rays.unbind(dim=-2)
    cos_a, cos_b, cos_c = (
        (p * q).sum(dim=-1) for p, q in ((ray_2, ray_3), (ray_1, ray_3), (ray_1, ray_2))
    )
    a, c = aa / bb, cc / bb
    d, s = a - c, a + c
    coefficients = [
        (1 + d) ** 2 - 4 * a * cos_c**2,
        4 * (-d * (1 + d) * cos_b + 2 * a * cos_c**2 * cos_b - (1 - s) * cos_a * cos_c),
        2 * (d**2 - 1 + 2 * d**2 * cos_b**2 + 2 * (1 - c) * cos_a**2)
        - 8 * s * cos_a * cos_b * cos_c
        + 4 * (1 - a) * cos_c**2,
        4 * (d * (1 - d) * cos_b - (1 - s) * cos_a * cos_c + 2 * c * cos_a**2 * cos_b),
        (d - 1) ** 2 - 4 * c * cos_a**2,
    ]
    third_ratio = _real_roots(torch.stack(coefficients, dim=-1))
    cos_a, cos_b, cos_c, d = (value[:, None] for value in (cos_a, cos_b, cos_c, d))
    second_ratio = ((d - 1) * third_ratio**2 - 2 * d * cos_b * third_ratio + 1 + d) / (
        2 * (cos_c - third_ratio * cos_a)
    )
    reach = torch.sqrt(bb[:, None] / (1 + third_ratio**2 - 2 * third_ratio * cos_b))
    ratios = torch.stack([torch.ones_like(reach), second_ratio, third_ratio], dim=-1)
    ratios = torch.where((ratios > 0).all(dim=-1, keepdim=True), ratios, torch.nan)
    return (reach[..., None] * ratios)[..., None] * rays[:, None]


def orthographic_triangles(
    points: Float[Tensor, "k 3 3"], seen: Float[Tensor, "k 3 2"]
) -> Float[Tensor, "k 2 3 3"]:
    """A triangle turned and scaled so that its corners are seen where they are; NaN if impossible.

    With edges p, q of the triangle seen as u, v, rises g, h and squared scale S:
    S pp = uu + gg, S qq = vv + hh, S pq = uv + gh, and so
    (S pp - uu)(S qq - vv) = (S pq - uv)^2, of whose roots the larger one leaves g, h real.
    The two answers rise to opposite sides; the first corner has depth 0.

    Args:
        points: the triangle's corners, in any axes.
        seen: their orthographic picture.
    """
    p, q = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    u, v = seen[:, 1] - seen[:, 0], seen[:, 2] - seen[:, 0]
    pp, qq, pq = ((x * y).sum(dim=-1) for x, y in ((p, p), (q, q), (p, q)))
    uu, vv, uv = ((x * y).sum(dim=-1) for x, y in ((u, u), (v, v), (u, v)))
    half = 0.5 * (pp * vv + qq * uu) - pq * uv
    area, seen_area = pp * qq - pq**2, uu * vv - uv**2
    root = (half**2 - area * seen_area).clamp(min=0.0).sqrt()
    scale = (half + root) / area
    g = (scale * pp - uu).clamp(min=0.0).sqrt()
    h = (scale * qq - vv).clamp(min=0.0).sqrt() * torch.where(scale * pq < uv, -1.0, 1.0)
    rise = torch.stack([torch.zeros_like(g), g, h], dim=-1)
    both = torch.stack([rise, -rise], dim=1)
    return torch.cat([seen[:, None].expand(-1, 2, 3, 2), both[..., None]], dim=-1)


def _wide_triples(matches: Matches, draws: int, generator: torch.Generator) -> Tensor:
    """Indices of triples drawn by weight, the half with the larger triangles on the picture."""
    drawn = torch.multinomial(
        matches.weights, 6 * draws, replacement=True, generator=generator
    ).reshape(-1, 3)
    seen = matches.seen[drawn]
    u, v = seen[:, 1] - seen[:, 0], seen[:, 2] - seen[:, 0]
    area = (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).abs()
    return drawn[area.topk(draws, sorted=False).indices]


def _poses_of_triangles(
    points: Tensor, seen: Tensor, corners: Tensor, focal: Tensor | None
) -> Poses:
    """Poses that take triangles of the object (k 3 3) to the camera's (k answers 3 3)."""
    answers = corners.shape[1]
    points = points[:, None].expand(-1, answers, -1, -1).flatten(0, 1)
    corners = corners.flatten(0, 1)
    rotation = _frame(corners) @ _frame(points).mT
    turned = (rotation @ points.mean(dim=1)[..., None])[..., 0]
    if focal is None:
        edges = [_perimeter(triangle) for triangle in (corners, points)]
        scale = edges[0] / edges[1]
        center = seen[:, None].expand(-1, answers, -1, -1).flatten(0, 1).mean(dim=1)
        middle, log_focal = center - scale[:, None] * turned[:, :2], None
    else:
        focal = focal[:, None].expand(-1, answers).flatten()
        position = corners.mean(dim=1) - turned
        scale = focal / position[:, 2]
        middle, log_focal = scale[:, None] * position[:, :2], focal.log()
    poses = Poses(rotation, middle, scale.log(), log_focal)
    numbers = torch.cat([rotation.flatten(1), middle, scale.log()[:, None]], dim=-1)
    return poses.take(numbers.isfinite().all(dim=-1).nonzero()[:, 0])


def _frame(triangles: Tensor) -> Tensor:
    """Right-handed unit axes (columns) along an edge and across the plane of triangles."""
    edge = triangles[:, 1] - triangles[:, 0]
    normal = torch.cross(edge, triangles[:, 2] - triangles[:, 0], dim=-1)
    edge, normal = edge / length(edge)[:, None], normal / length(normal)[:, None]
    return torch.stack([edge, torch.cross(normal, edge, dim=-1), normal], dim=-1)


def _perimeter(triangles: Tensor) -> Tensor:
    return length(triangles - triangles.roll(1, dims=1)).sum(dim=-1)


def _real_roots(coefficients: Tensor) -> Tensor:
    """Real roots of polynomials of degree 4, constants first, by companion matrices; else NaN."""
    monic = coefficients[:, :-1] / coefficients[:, -1:]
    is_good = monic.isfinite().all(dim=-1)
    companion = torch.diag_embed(torch.ones_like(monic[:, 1:]), offset=-1)
    companion[:, :, -1] = torch.where(is_good[:, None], -monic, 0.0)
    # torch's stubs leave this function untyped.
    roots = cast("Tensor", torch.linalg.eigvals(companion))  # pyright: ignore[reportUnknownMemberType]
    is_real = is_good[:, None] & (roots.imag.abs() <= _NEARLY_REAL * roots.real.abs())
    return torch.where(is_real, roots.real, torch.nan)
