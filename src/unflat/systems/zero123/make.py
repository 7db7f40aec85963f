"""New views of an object: poses in, pictures out.

::

    reference = model.reference(image[None], opacity[None])
    views = make_views(model, reference, poses, Sampler(), seed=0)

The picture is encoded once for all poses. By default all views begin with the same noise, so that
what chance decides is decided alike. `make_consistent` goes further: views are made one after the
other, outwards from the picture, and each is told the picture and the views made before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.model import Split, Tensors, ViewModel, Views, denoise
from unflat.systems.zero123.sampler import Denoiser, Sampler, sample
from unflat.systems.zero123.schedule import timesteps

Progress = Callable[[int, int], None]
"""Told (done, all) steps of all views."""

SEEN_TOGETHER = 125.0
"""Degrees between two views beyond which one does not inform the other (ViewFusion's)."""
_EMPTY, _THERE = 0.1, 0.3  # opacity up to which a pixel is empty, and from which it is kept
_SPREAD = 0.5  # ViewFusion's temperature, of angles over the largest and of places in the order


@dataclass(frozen=True, kw_only=True)
class Known:
    """A view that is there already: a second picture, or one made before."""

    image: Float[Tensor, "3 side side"]
    """On white, [0, 1]."""
    opacity: Float[Tensor, "side side"]
    """Share of each pixel that the object covers."""
    pose: RelativePose
    """From the first picture to it; no leading axis."""


def no_move() -> RelativePose:
    """The picture's own pose; no leading axis."""
    return RelativePose.from_degrees(0.0, 0.0)


@torch.no_grad()
def make_views(
    model: ViewModel,
    reference: Tensors,
    poses: RelativePose,
    sampler: Sampler,
    *,
    seed: int = 0,
    batch: int = 16,
    shared_noise: bool = True,
    places: Sequence[int] | None = None,
    progress: Progress | None = None,
    finished: Callable[[list[int], Views], None] | None = None,
) -> Views:
    """Views at poses, each sampled on its own.

    Args:
        model: what makes them.
        reference: of one picture.
        poses: a batch, one axis.
        sampler: how.
        seed: of the noise, which does not depend on the batch.
        batch: views at a time.
        shared_noise: all views begin with the same noise.
        places: of the poses in a larger set, if these are some of it; each has noise of its own.
        progress: told after each step.
        finished: told places of views, and the views.
    """
    made: list[Views] = []
    visited = timesteps(sampler.steps, sampler.spacing)
    numbers = list(range(len(poses.polar)) if places is None else places)
    parts = range(0, len(numbers), batch)
    for number, start in enumerate(parts):
        condition = model.condition(reference, poses[start : start + batch])
        here = numbers[start : start + batch]
        latent = _sampled(
            model,
            lambda x, t, told=condition: denoise(model, x, t, told, sampler.guidance_scale),
            here,
            sampler,
            seed,
            shared_noise,
            lambda done, number=number: _tell(
                progress, number * len(visited) + done, len(parts) * len(visited)
            ),
        )
        made.append(clipped(model.decode(latent)))
        if finished is not None:
            finished(here, made[-1])
    return joined(made)


@torch.no_grad()
def make_consistent(
    model: ViewModel,
    known: Sequence[Known],
    poses: RelativePose,
    sampler: Sampler,
    *,
    input_elevation: float = 0.0,
    seed: int = 0,
    shared_noise: bool = True,
    extend: bool = True,
    places: Sequence[int] | None = None,
    progress: Progress | None = None,
    finished: Callable[[list[int], Views], None] | None = None,
) -> Views:
    """Views that are told all there is: pictures, and (if ``extend``) the views made before.

    What the model says of each reference is averaged, with weights that fall with the angle to it
    (ViewFusion, arXiv 2402.18842): the share of the pictures falls along the order in which views
    are made, exp(-(i + 1) / (n / 2)); the rest is the earlier views' within 125 degrees, by
    softmax(-angle / (largest / 2)). With one reference this is `make_views`.

    Args:
        model: what makes them.
        known: the pictures, the first with no move.
        poses: from the first picture; a batch, one axis.
        sampler: how.
        input_elevation: radians, how high the first picture was taken; for angles between views.
        seed: of the noise.
        shared_noise: all views begin with the same noise.
        extend: whether views made before are told as well.
        places: of the poses in a larger set, if these are some of it; each has noise of its own.
        progress: told after each step of each view.
        finished: told the place of each view, and the view.
    """
    count, visited = len(poses.polar), len(timesteps(sampler.steps, sampler.spacing))
    order = poses.angle(input_elevation).argsort(stable=True).tolist()
    numbers = list(range(count) if places is None else places)
    references = [_reference_of(model, one, input_elevation) for one in known]
    moves, made = [one.pose for one in known], dict[int, Views]()
    for number, place in enumerate(order):
        goal = poses[place : place + 1]
        angles = torch.stack(
            [_from(move, goal).angle(input_elevation - float(move.polar))[0] for move in moves]
        )
        weights = reference_weights(angles, len(known), number, count)
        kept = [index for index, weight in enumerate(weights.tolist()) if weight > 0]
        condition = Tensors.join(
            [model.condition(references[index], _from(moves[index], goal)) for index in kept]
        )
        latent = _sampled(
            model,
            mixture(model, condition, weights[kept].to(model.device), sampler.guidance_scale),
            [numbers[place]],
            sampler,
            seed,
            shared_noise,
            lambda done, number=number: _tell(progress, number * visited + done, count * visited),
        )
        made[place] = clipped(model.decode(latent))
        if finished is not None:
            finished([numbers[place]], made[place])
        if extend:
            image, opacity = made[place].image[0], opacity_of(made[place])[0]
            one = Known(image=image, opacity=opacity, pose=goal[0])
            references.append(_reference_of(model, one, input_elevation))
            moves.append(goal[0])
    return joined([made[place] for place in range(count)])


def mixture(
    model: ViewModel, conditions: Tensors, weights: Float[Tensor, " references"], scale: float
) -> Denoiser:
    """What a model says of one noisy picture by several references, averaged; one null for all.

    Args:
        model: what says it.
        conditions: of each reference.
        weights: sum to 1.
        scale: of guidance.
    """
    told = conditions
    if scale != 1.0:
        told = Tensors.join([conditions, model.null(conditions[:1])])

    def said(noisy: Tensor, timestep: Tensor) -> Split:
        many = noisy.expand(len(told), -1, -1, -1)
        answers = model.predict(many, timestep.expand(len(told)), told).to(noisy)
        mean = torch.einsum("n,nchw->chw", weights.to(noisy), answers[: len(weights)])[None]
        if scale != 1.0:
            mean = answers[-1:] + scale * (mean - answers[-1:])
        return Split(*model.schedule.split(noisy, mean, timestep, model.prediction))

    return said


def reference_weights(
    angles: Float[Tensor, " references"], pictures: int, number: int, count: int
) -> Float[Tensor, " references"]:
    """How much each reference counts for a view; they sum to 1.

    Args:
        angles: radians from each reference to the view; pictures first, then views made before.
        pictures: how many of them are pictures.
        number: of the view in the order in which views are made, from 0.
        count: of all views.
    """
    degrees = torch.rad2deg(angles.double())
    near = degrees[pictures:] <= SEEN_TOGETHER
    share = torch.exp(torch.tensor(-(number + 1) / (count * _SPREAD), dtype=torch.float64))
    if not bool(near.any()):
        share = torch.ones_like(share)
    widest = degrees.max().clamp_min(1e-6) * _SPREAD
    own = torch.softmax(-degrees[:pictures] / widest, dim=0) * share
    rest = torch.where(near, -degrees[pictures:] / widest, -torch.inf)
    rest = (1 - share) * torch.softmax(rest, dim=0) if bool(near.any()) else 0 * near
    return torch.cat([own, rest]).to(angles.dtype)


def opacity_of(views: Views, limit: float = 8 / 255) -> Float[Tensor, "batch side side"]:
    """Share of each pixel that the object covers; from what is not white, if the model tells none.

    Args:
        views: as a model made them.
        limit: how much darker than white a channel has to be.
    """
    if views.opacity is not None:
        return views.opacity
    return ((1 - views.image).amax(dim=1) > limit).to(views.image)


def clipped(views: Views) -> Views:
    """Colors and opacity in [0, 1]; white where the model itself says that there is nothing."""
    image = views.image.float().clamp(0, 1)
    if views.opacity is None:
        return Views(image, None)
    opacity = views.opacity.float().clamp(0, 1)
    kept = ((opacity - _EMPTY) / (_THERE - _EMPTY)).clamp(0, 1)
    return Views(1 - kept[:, None] * (1 - image), opacity * kept)


def joined(several: Sequence[Views]) -> Views:
    """One batch after the other."""
    opacities = [each.opacity for each in several if each.opacity is not None]
    return Views(
        torch.cat([each.image for each in several]), torch.cat(opacities) if opacities else None
    )


def _sampled(
    model: ViewModel,
    denoiser: Denoiser,
    places: list[int],
    sampler: Sampler,
    seed: int,
    shared_noise: bool,
    told: Callable[[int], None],
) -> Float[Tensor, "batch channels height width"]:
    """Latents of some views, whose noise depends on seed and place alone."""
    shape = model.latent_shape
    streams = [
        torch.Generator().manual_seed(_stream(seed, 0 if shared_noise else place))
        for place in places
    ]

    def fresh(_: int = 0) -> Tensor:
        return torch.stack([torch.randn(shape, generator=one) for one in streams]).to(model.device)

    visited = timesteps(sampler.steps, sampler.spacing)
    steps = sample(denoiser, model.schedule, fresh(), visited, sampler, fresh)
    latent = torch.empty(0)
    for step in steps:
        latent = step.latent
        told(step.number)
    return latent


def _stream(seed: int, place: int) -> int:
    """A seed of its own for each place."""
    return (seed * 1_000_003 + place) % 2**63


def _reference_of(model: ViewModel, one: Known, input_elevation: float) -> Tensors:
    device = model.device
    height = torch.tensor([input_elevation - float(one.pose.polar)], device=device)
    return model.reference(one.image[None].to(device), one.opacity[None].to(device), height)


def _from(move: RelativePose, goal: RelativePose) -> RelativePose:
    """From a reference to a view, both told from the first picture."""
    back = move.back()
    return RelativePose(
        polar=goal.polar + back.polar,
        azimuth=goal.azimuth + back.azimuth,
        radius=goal.radius + back.radius,
    )


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
