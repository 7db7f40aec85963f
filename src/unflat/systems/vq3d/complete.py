"""What a photo does not show, drawn from the prior: look from aside, complete, carry back.

A camera beside the canonical one sees parts of the scene that the photo cannot tell of: behind the
near side of steps in depth, and beside the picture. The view is rendered and encoded; tokens whose
pixels are unseen are drawn by the prior, given the others; their picture and depth are fitted to
what is known around them and carried to the canonical camera, where they become the sheets behind
and around the photo (`unflat.fields.detail.DetailField`). Then the next camera, farther out, which
sees the completed parts as known.

    field = complete(field, model, prior, torch.Generator().manual_seed(0)).field
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from unflat.errors import UserError
from unflat.fields.detail import SHEET, DetailField, HiddenSheet
from unflat.fields.planes import sample_plane
from unflat.fields.viewspace import ray_limits, view_coordinates
from unflat.geometry.camera import Camera
from unflat.geometry.projective import Frame
from unflat.geometry.rays import pixel_grid
from unflat.geometry.trajectory import turn_about_pivot
from unflat.rendering.box_mean import box_mean
from unflat.rendering.forward_warp import forward_warp
from unflat.rendering.render import RenderOptions, RenderOutput, render
from unflat.scene import Scene
from unflat.systems.vq3d.autoencoder import Autoencoder
from unflat.systems.vq3d.generate import Sampling, SceneMaker, field_of_codes
from unflat.systems.vq3d.prior import NO_CLASS
from unflat.systems.vq3d.recipe import render_canonical

BEHIND = 0.06  # of normalised disparity: what lies so far behind the photo's surface is unseen
_SAMPLES = 48  # intervals of a ray
_UNSEEN_SHARE = 0.5  # of a token's pixels, from which it is drawn anew
_LEAST_KNOWN = 0.1  # of a view's pixels, below which nothing can be fitted to it
_SCALES = (0.5, 2.0)  # between which the fitted scale of disparity may lie
_SOFT = 8  # the sides of a view to the radius over which a misfit at the border fades


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Where the cameras stand from which the scene is completed."""

    angles_deg: tuple[float, ...] = (14.0, 28.0)
    """Turns about the pivot, one ring after the other."""
    directions: int = 4
    """Cameras of a ring, evenly: right, up, left, down for four."""
    reach: float = 1.75
    """Half-widths of the photo up to which something is put beside it."""


@runtime_checkable
class Completer(Protocol):
    """What draws unknown codes; a `Prior` does."""

    def sample(
        self,
        labels: Int[Tensor, " batch"],
        generator: torch.Generator,
        *,
        given: Int[Tensor, "batch tokens codes"] | None = None,
        steps: int = 16,
        temperature: float = 1.0,
        guidance_scale: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Int[Tensor, "batch tokens codes"]:
        """Codes: the given ones, and drawn ones where they are -1."""
        ...


COMPLETING = Sampling(temperature=0.5, guidance_scale=1.0)
"""How unseen tokens are drawn unless said otherwise: nearer to the likeliest than new scenes."""


class Completed(NamedTuple):
    """A scene with what was drawn."""

    field: DetailField
    """The photo as before, with other sheets behind and around it."""
    tokens: int
    """How many tokens were drawn, over all views."""
    views: int
    """How many views had any."""


class _Canvas(NamedTuple):
    """What was drawn so far, seen by the canonical camera through a wider lens."""

    rgb: Float[Tensor, "1 3 side side"]
    disparity: Float[Tensor, "1 1 side side"]
    mask: Bool[Tensor, "1 1 side side"]


@torch.no_grad()
def complete(
    field: DetailField,
    model: Autoencoder,
    prior: Completer,
    generator: torch.Generator,
    *,
    walk: Walk | None = None,
    sampling: Sampling | None = None,
) -> Completed:
    """A scene whose unseen parts are drawn from the prior.

    Args:
        field: of one photo, under the frame in which it is looked at.
        model: the one whose tokens the prior draws.
        prior: its class is left open.
        generator: of what is drawn.
        walk: where it is looked at from.
        sampling: how tokens are drawn.

    Raises:
        ValueError: more than one scene.
    """
    if len(field.photo) != 1:
        raise ValueError(f"complete takes one scene at a time, got {len(field.photo)}")
    walk, sampling = walk or Walk(), sampling or COMPLETING
    side = model.config.resolution
    canvas, drawn, views = _blank(round(side * walk.reach), field.photo), 0, 0
    current = field
    for camera in _cameras(field, walk):
        seen = _look(current, camera, side)
        unseen = _unseen(field, canvas, walk.reach, camera, seen)
        share = functional.avg_pool2d(unseen[None, None].float(), model.config.patch)
        unknown = share > _UNSEEN_SHARE
        kept = functional.interpolate((~unknown).float(), (side, side))[0, 0] > 0.5
        known = kept & ~unseen  # by these pixels is judged how well a drawn view fits
        if not unknown.any() or known.float().mean() < _LEAST_KNOWN:
            continue
        drawn, views = drawn + int(unknown.sum()), views + 1
        picture, inverse_depth = _draw(
            seen, known, unknown.flatten(), model, prior, generator, sampling, field.frame
        )
        canvas = _carry(field, canvas, walk.reach, camera, picture, inverse_depth, unseen)
        current = _with_canvas(field, canvas, walk.reach)
    return Completed(current, drawn, views)


def complete_scene(
    scene: Scene, maker: SceneMaker, *, seed: int = 0, walk: Walk | None = None
) -> tuple[Scene, Completed]:
    """A reconstructed scene with what its photo does not show, and what was drawn for it.

    Args:
        scene: made by the same model of stage 1, in its detail mode.
        maker: the prior with that model.
        seed: of what is drawn.
        walk: where it is looked at from.

    Raises:
        UserError: the scene carries no photo.
    """
    if not isinstance(scene.field, DetailField):
        raise UserError("--complete: needs what the photo shows; use it with --mode detail.")
    field = copy.deepcopy(scene.field).to(maker.device)
    generator = torch.Generator(maker.device).manual_seed(seed)
    done = complete(field, maker.model, maker.prior, generator, walk=walk, sampling=maker.sampling)
    header = replace(scene.header, settings={**scene.header.settings, "completed": maker.name})
    return Scene(done.field.cpu(), header, max_angle=scene.max_angle), done


def _cameras(field: DetailField, walk: Walk) -> Iterator[Camera]:
    frame = field.frame
    middle = float(field.disparity.median())
    assumed = frame.d_far + (frame.d_near - frame.d_far) * middle
    pivot = 1 / max((assumed - frame.b) / frame.a, 1e-3)
    for angle in walk.angles_deg:
        for number in range(walk.directions):
            turn = 2 * math.pi * number / walk.directions
            right, up = (
                torch.tensor([math.radians(angle) * part], device=field.photo.device)
                for part in (math.cos(turn), math.sin(turn))
            )
            yield Camera(
                camera_to_world=turn_about_pivot(right, up, pivot),
                intrinsics=_lens(field, 1.0),
            )


def _lens(field: DetailField, reach: float) -> Float[Tensor, "1 4"]:
    focal = field.frame.focal_true / 2 / reach
    return torch.tensor([[focal, focal, 0.5, 0.5]], device=field.photo.device)


def _look(field: DetailField, camera: Camera, side: int) -> RenderOutput:
    near, far = ray_limits(field.frame)
    options = RenderOptions(samples=_SAMPLES, near=near, far=far, spacing="disparity")
    return render(field, camera, side, side, options)


def _unseen(
    field: DetailField, canvas: _Canvas, reach: float, camera: Camera, seen: RenderOutput
) -> Bool[Tensor, "side side"]:
    """Pixels of a view that show neither what the photo shows nor what was drawn before."""
    side = seen.disparity.shape[-1]
    across = pixel_grid(side, side).to(seen.rgb)
    across = (across - camera.intrinsics[0, 2:]) / camera.intrinsics[0, :2]
    rays = torch.cat([across, torch.ones_like(across[..., :1])], dim=-1)
    points = rays / seen.disparity[0, ..., None].clamp_min(1e-6)
    pose = camera.camera_to_world[0]
    q, _ = view_coordinates(points @ pose[:3, :3].T + pose[:3, 3], field.frame)
    q = q.flatten(0, 1)[None]
    surface = sample_plane(field.disparity, q[..., :2], mode="nearest")[0, :, 0]
    inside, delta = (q[0, :, :2].abs() <= 1).all(-1), q[0, :, 2]
    before = sample_plane(
        torch.cat([canvas.disparity, canvas.mask.to(canvas.disparity)], 1),
        q[..., :2] / reach,
        mode="nearest",
    )[0]
    drawn = (before[:, 1] > 0.5) & ((before[:, 0] - delta).abs() < BEHIND)
    drawn &= (q[0, :, :2].abs() <= reach).all(-1)
    unseen = ~(inside & (delta > surface - BEHIND)) & ~drawn
    # Lone pixels are edges, where a ray's mean depth belongs to no surface.
    shrunk = -functional.max_pool2d(-unseen.reshape(1, 1, side, side).float(), 3, 1, 1)
    return functional.max_pool2d(shrunk, 3, 1, 1)[0, 0] > 0.5


def _draw(
    seen: RenderOutput,
    known: Bool[Tensor, "side side"],
    unknown: Bool[Tensor, " tokens"],
    model: Autoencoder,
    prior: Completer,
    generator: torch.Generator,
    sampling: Sampling,
    frame: Frame,
) -> tuple[Float[Tensor, "1 3 side side"], Float[Tensor, "1 side side"]]:
    """Picture and 1 / depth of the view with its unknown tokens drawn, fitted to what is known."""
    rgb = seen.rgb
    codes = model.encode(rgb.clamp(0, 1)).quantized.indices
    given = codes.masked_fill(unknown[None, :, None], -1)
    codes = prior.sample(
        torch.full((1,), NO_CLASS, device=codes.device),
        generator,
        given=given,
        steps=sampling.steps,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
    )
    picture, delta, _ = render_canonical(field_of_codes(model, codes), rgb.shape[-1], _SAMPLES)
    assumed = frame.d_far + (frame.d_near - frame.d_far) * delta[:, 0]
    inverse_depth = _fitted(assumed, seen.disparity, known)
    stack = torch.cat([rgb - picture, (seen.disparity - inverse_depth)[:, None]], dim=1)
    radius = max(1, rgb.shape[-1] // _SOFT)
    misfit = _spread(stack, known[None, None].to(stack), radius)
    return (picture + misfit[:, :3]).clamp(0, 1), inverse_depth + misfit[:, 3]


def _fitted(
    assumed: Float[Tensor, "1 side side"],
    true: Float[Tensor, "1 side side"],
    known: Bool[Tensor, "side side"],
) -> Float[Tensor, "1 side side"]:
    """True disparity from the assumed one: scale and shift by least squares where it is known."""
    x, y = assumed[0][known], true[0][known]
    spread = (x - x.mean()).square().mean()
    scale = ((x - x.mean()) * (y - y.mean())).mean() / spread.clamp_min(1e-9)
    usual = y.std(correction=0) / spread.sqrt().clamp_min(1e-6)
    scale = scale.clamp(_SCALES[0] * usual, _SCALES[1] * usual)
    return y.mean() + scale * (assumed - x.mean())


def _spread(
    values: Float[Tensor, "1 channels side side"],
    known: Float[Tensor, "1 1 side side"],
    radius: int,
) -> Float[Tensor, "1 channels side side"]:
    """Known values carried a little way into the unknown, fading to 0."""
    total = box_mean(box_mean(values * known, radius), radius)
    share = box_mean(box_mean(known, radius), radius)
    return total / share.clamp_min(0.1)


def _carry(
    field: DetailField,
    canvas: _Canvas,
    reach: float,
    camera: Camera,
    picture: Float[Tensor, "1 3 side side"],
    inverse_depth: Float[Tensor, "1 side side"],
    unseen: Bool[Tensor, "side side"],
) -> _Canvas:
    """The canvas with the view's unseen pixels where nothing was drawn before."""
    side, frame = canvas.rgb.shape[-1], field.frame
    nearest = 1 / ray_limits(frame)[0]
    inverse_depth = inverse_depth.clamp(1e-3, nearest)
    stack = torch.cat([picture, torch.ones_like(picture[:, :1])], dim=1) * unseen
    # What is not carried is infinitely far: everything else hides it.
    stack, near = _enlarged(stack, inverse_depth * unseen, side)
    wide = Camera(
        camera_to_world=torch.eye(4, device=picture.device)[None], intrinsics=_lens(field, reach)
    )
    moved = forward_warp(stack, near, camera, wide, subpixels=3)
    there = moved.visible & (moved.image[:, 3] > 0.5) & (moved.inverse_depth > 0)
    assumed = frame.a * moved.inverse_depth + frame.b
    delta = (assumed - frame.d_far) / (frame.d_near - frame.d_far)
    delta = delta.clamp_min(SHEET)[:, None]  # beyond the farthest is the farthest
    rgb, delta, there = _closed(moved.image[:, :3], delta, there[:, None])
    across = pixel_grid(side, side).to(delta)[None] * 2 - 1
    surface = sample_plane(field.disparity, across * reach, mode="nearest").permute(0, 3, 1, 2)
    inside = ((across * reach).abs() <= 1).all(-1)[:, None]
    new = there & ~canvas.mask & ~(inside & (delta > surface - BEHIND))
    return _Canvas(
        torch.where(new, rgb, canvas.rgb),
        torch.where(new, delta, canvas.disparity),
        canvas.mask | new,
    )


def _enlarged(stack: Tensor, near: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """A view at the canvas' own side, so that its points are as dense as the canvas' pixels."""
    size = (side, side)
    near = functional.interpolate(near[:, None], size, mode="nearest")[:, 0]
    return functional.interpolate(stack, size, mode="nearest"), near


def _closed(rgb: Tensor, delta: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels that nothing landed on between at least five that were hit get their mean."""
    count = functional.avg_pool2d(there.float(), 3, 1, 1) * 9
    stack = torch.cat([rgb, delta], dim=1)
    mean = functional.avg_pool2d(stack * there, 3, 1, 1) * 9 / count.clamp_min(1)
    crack = ~there & (count >= 5)
    stack = torch.where(crack, mean, stack)
    return stack[:, :3], stack[:, 3:], there | crack


def _blank(side: int, like: Tensor) -> _Canvas:
    nothing = torch.zeros(1, 1, side, side, device=like.device)
    return _Canvas(nothing.expand(1, 3, side, side).clone(), nothing, nothing.bool())


def _with_canvas(field: DetailField, canvas: _Canvas, reach: float) -> DetailField:
    """The field with what was drawn: around the photo as it is, behind it at its own resolution."""
    height, width = field.photo.shape[-2:]
    stack = torch.cat([canvas.rgb, canvas.disparity, canvas.mask.float()], dim=1)
    rows, columns = (
        ((torch.arange(size) + 0.5) / size - 0.5) / reach + 0.5 for size in (height, width)
    )
    side = canvas.rgb.shape[-1]
    picked = stack[:, :, (rows * side).long()][..., (columns * side).long()]
    rgb, disparity, mask = picked.split([3, 1, 1], dim=1)
    behind = field.disparity - BEHIND / 2
    mask = mask * (behind > SHEET)  # rays end before what would lie behind the farthest
    disparity = torch.minimum(disparity, behind.clamp_min(SHEET))
    hidden = HiddenSheet(rgb, disparity, mask)
    if field.hidden is not None:
        drawn = mask > 0.5
        hidden = HiddenSheet(
            torch.where(drawn, rgb, field.hidden.rgb),
            torch.where(drawn, disparity, field.hidden.disparity),
            torch.where(drawn, mask, field.hidden.mask),
        )
    around = HiddenSheet(canvas.rgb, _smoothed(canvas), canvas.mask.float())
    return field.with_sheets(hidden, around, reach)


def _smoothed(canvas: _Canvas) -> Float[Tensor, "1 1 side side"]:
    """Disparity without the rounding of single points: the mean of near ones like it."""
    disparity, mask = canvas.disparity, canvas.mask
    size = disparity.shape[-1]
    windows = functional.unfold(torch.cat([disparity, mask.float()], 1), 5, padding=2)
    values, there = windows.unflatten(1, (2, 25)).unbind(1)
    like = there * ((values - disparity.flatten(2)).abs() < BEHIND)
    mean = (values * like).sum(1) / like.sum(1).clamp_min(1)
    return torch.where(mask, mean.reshape(1, 1, size, size), disparity).clamp_min(SHEET)
