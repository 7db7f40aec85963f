"""What one run of making views does: alone or told of each other, once or the best of several."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.hull import agreement
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.make import Known, make_consistent, make_views, opacity_of
from unflat.systems.zero123.model import ViewModel, Views
from unflat.systems.zero123.sampler import Sampler
from unflat.systems.zero123.view_folder import cameras_of

Finished = Callable[[list[int], Views], None]
"""Told places of views, and the views."""

BATCH = 16
"""Views at a time."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """All views of one object."""

    pictures: Sequence[Known]
    """Of the object; the first is where poses begin."""
    poses: RelativePose
    """From the first picture to every view."""
    samples: Sequence[int]
    """Which of several of the same pose each view is."""
    height: float | None
    """Radians: how high the first picture was taken; None if nobody knows."""
    sampler: Sampler
    """How views are denoised."""
    seed: int = 0
    """Of the noise; each sample has its own."""
    shared_noise: bool = True
    """All views of a sample begin with the same noise."""
    consistent: bool = False
    """Views are made one after the other and told of those before."""
    best_of: int = 1
    """Sets of views that are made; the one that agrees best is kept."""
    batch: int = BATCH
    """Views at a time, where they are made at once."""


def carry_out(model: ViewModel, order: Order, missing: Sequence[int], finished: Finished) -> None:
    """Make the missing views of an order.

    Args:
        model: what makes them.
        order: all views.
        missing: places of those that are not there yet.
        finished: told of views as they come.
    """
    for sample in sorted({order.samples[place] for place in missing}):
        own = [place for place, one in enumerate(order.samples) if one == sample]
        if order.best_of > 1:
            chosen = max(
                (
                    _made(model, order, own, own, sample * order.best_of + number, None)
                    for number in range(order.best_of)
                ),
                key=lambda views, own=own: set_agreement(views, order, own),
            )
            finished(own, chosen)
            continue
        wanted = [place for place in missing if order.samples[place] == sample]
        # views that are told of each other cannot be made without those before
        _made(model, order, own if order.consistent else wanted, own, sample, finished)


def set_agreement(views: Views, order: Order, places: Sequence[int]) -> float:
    """How well the outlines of views agree with each other and with the pictures, in [0, 1].

    Args:
        views: one for each place.
        order: where they are.
        places: of the views.
    """
    height = order.height or 0.0
    poses = [one.pose for one in order.pictures] + [order.poses[place] for place in places]
    joined = RelativePose(
        polar=torch.stack([pose.polar for pose in poses]),
        azimuth=torch.stack([pose.azimuth for pose in poses]),
        radius=torch.stack([pose.radius for pose in poses]),
    )
    known = torch.stack([one.opacity for one in order.pictures])
    outlines = torch.cat([known, opacity_of(views).to(known)])
    return float(agreement(outlines, cameras_of(joined, height)).mean())


def _made(
    model: ViewModel,
    order: Order,
    places: Sequence[int],
    own: Sequence[int],
    sample: int,
    finished: Finished | None,
) -> Views:
    """Some views of one sample; noise goes by the place within the sample."""
    rank = {place: number for number, place in enumerate(own)}
    poses = order.poses[torch.tensor(list(places))]
    common = {"seed": order.seed * 1_000 + sample, "shared_noise": order.shared_noise}

    def told(numbers: list[int], views: Views) -> None:
        if finished is not None:
            finished([own[number] for number in numbers], views)

    if order.consistent or len(order.pictures) > 1:
        return make_consistent(
            model,
            order.pictures,
            poses,
            order.sampler,
            input_elevation=order.height or 0.0,
            extend=order.consistent,
            places=[rank[place] for place in places],
            finished=told,
            **common,
        )
    first, device = order.pictures[0], model.device
    height = None if order.height is None else _row(order.height).to(device)
    reference = model.reference(
        first.image[None].to(device), first.opacity[None].to(device), height
    )
    return make_views(
        model,
        reference,
        poses,
        order.sampler,
        batch=order.batch,
        places=[rank[place] for place in places],
        finished=told,
        **common,
    )


def _row(value: float) -> Float[Tensor, "1"]:
    if not math.isfinite(value):
        raise ValueError(f"height is {value}")
    return torch.tensor([value])
