"""Inversion by the published settings and by unflat's, from the same starts; and what is measured.

The published way (arXiv 2211.11674 and its code, for 10 steps): every ray of the whole picture at
128 px, 64 and 64 samples at random depths that are all kept, features of the pair and of 15 random
warps of it, no other term, nothing skipped. Generator, feature network, optimizer, pictures and
starts are those of the other way, and so is what renders: fused kernels, where they are installed.
It is generous in two things: poses of synthetic cars are fitted as well, and the palette has steps
of its own from one that suits the picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unflat.data.posed_objects import PosedObjects
from unflat.evaluation.inversion_inputs import choose_views
from unflat.geometry import Camera
from unflat.geometry.published_pose import ObjectPose, camera_from_pose
from unflat.hub import find
from unflat.hub.registry import FEATURES
from unflat.losses import FeatureDistance, frozen
from unflat.metrics import mask_iou, psnr
from unflat.rendering import Casting
from unflat.systems.features import load as load_features
from unflat.systems.inversion.compare import Comparison, Seen, difference, look
from unflat.systems.inversion.fit import FitConfig, Fitted, Unknowns, fit, steps_of
from unflat.systems.inversion.framing import Window
from unflat.systems.inversion.pipeline import InversionModel, load

SIDE = 128  # pixels of the whole picture
PUBLISHED = Casting(coarse=64, fine=64, keep="both")
WARPS = 15
GAIN = 20.0
LONGER = 40.0  # a gain of twice that
FIGURES = ("iou", "psnr", "perceptual", "other")


class Pictures(NamedTuple):
    """Whole pictures of single objects, what of them is object, and another view of each."""

    image: Tensor
    """"batch 3 128 128", in [0, 1], white beside the object."""
    mask: Tensor
    """"batch 128 128"."""
    other: Tensor
    """"batch 3 128 128"; not shown to any way."""
    camera: Camera
    """Of the other views, in the object world."""

    def part(self, chosen: slice) -> "Pictures":
        """Some of them."""
        camera = Camera(
            camera_to_world=self.camera.camera_to_world[chosen],
            intrinsics=self.camera.intrinsics[chosen],
        )
        return Pictures(self.image[chosen], self.mask[chosen], self.other[chosen], camera)

    def seen(self, side: int, background: float) -> Seen:
        """The windows around the objects."""
        return look(self.image, self.mask, side, background)


class Setup(NamedTuple):
    """What both ways have in common."""

    model: InversionModel
    distance: FeatureDistance

    @classmethod
    def of(cls, model: str) -> "Setup":
        """A model by name or path, with unflat's feature network."""
        distance = FeatureDistance(load_features(find(FEATURES)))
        return cls(load(find(model)), frozen(distance))


def pictures_of(data: Path, split: str, count: int) -> Pictures:
    """First one view of every object, then another; the views drawn by seed 0."""
    objects = PosedObjects(data, split, resolution=SIDE)
    rounds = -(-count // len(objects))
    choices = [
        choose_views(objects.view_count(index), rounds, "one", 0, index)
        for index in range(len(objects))
    ]
    found = [
        objects.views(index, [choice.inputs[turn], choice.others[turn][0]])
        for turn in range(rounds)
        for index, choice in enumerate(choices)
    ][:count]
    camera = Camera(
        camera_to_world=torch.stack([one.camera.camera_to_world[1] for one in found]),
        intrinsics=torch.stack([one.camera.intrinsics[1] for one in found]),
    )
    masks = torch.stack([one.masks[0] for one in found if one.masks is not None])
    images = torch.stack([one.images for one in found])
    return Pictures(images[:, 0], masks, images[:, 1], camera)


def starts_of(setup: Setup, pictures: Pictures) -> Unknowns:
    """The encoder's guesses."""
    model = setup.model
    return model.start(pictures.seen(model.side, model.objects.generator.background)).unknowns


def published(setup: Setup, start: Unknowns, pictures: Pictures, steps: int, seed: int) -> Fitted:
    """As the paper's code does it."""
    generator, draws = setup.model.objects.generator, torch.Generator().manual_seed(seed)
    count = len(pictures.image)
    seen = Seen(
        pictures.image, pictures.mask[:, None], Window(torch.zeros(count, 2), torch.ones(count))
    )
    how = Comparison(warps=WARPS, opacity=0.0)

    def losses(unknowns: Unknowns) -> Tensor:
        made = generator.picture(
            setup.model.form(unknowns),
            unknowns.codes,
            camera_from_pose(unknowns.pose),
            SIDE,
            jitter=torch.rand(count, SIDE * SIDE, generator=draws),
            casting=PUBLISHED,
        )
        behind = generator.background
        return difference(made.image, made.opacity, seen, setup.distance, how, draws, behind)

    return fit(start, losses, FitConfig(steps=steps, gain=GAIN))


def unflat(
    setup: Setup,
    start: Unknowns,
    pictures: Pictures,
    steps: int,
    seed: int,
    gain: float | None = None,
) -> Fitted:
    """As `unflat.systems.inversion.invert` does it, or with another gain."""
    model = setup.model
    seen = pictures.seen(model.side, model.objects.generator.background)
    config = steps_of(steps)
    config = config if gain is None else replace(config, gain=gain)
    return model.refine(start, seen, setup.distance, config, seed=seed)


WAYS: dict[str, Callable[[Setup, Unknowns, Pictures, int, int], Fitted]] = {
    "published": published,
    "unflat": unflat,
    "longer": partial(unflat, gain=LONGER),
}
"""By name; all but the first are quick."""


@torch.no_grad()
def figures_of(setup: Setup, unknowns: Unknowns, pictures: Pictures) -> list[dict[str, float]]:
    """Of each picture: the whole of it at 128 px, rendered by as many samples as published."""
    found = []
    for number in range(len(pictures.image)):
        chosen = slice(number, number + 1)
        true = pictures.part(chosen)
        made = setup.model.render(part(unknowns, chosen), None, SIDE, casting=PUBLISHED)
        image = made.image.clamp(0, 1)
        one, maker = part(unknowns, chosen), setup.model.objects.generator
        form = setup.model.form(one)
        other = maker.picture(form, one.codes, true.camera, SIDE, casting=PUBLISHED)
        values = (
            mask_iou(made.opacity[:, 0], true.mask),
            psnr(image, true.image),
            setup.distance(image, true.image),
            psnr(other.image.clamp(0, 1), true.other),
        )
        found.append({name: float(value) for name, value in zip(FIGURES, values, strict=True)})
    return found


def part(unknowns: Unknowns, chosen: slice) -> Unknowns:
    """Some pictures' unknowns."""
    turn, shift, scale, zoom = unknowns.pose
    pose = ObjectPose(
        turn[chosen], shift[chosen], scale[chosen], None if zoom is None else zoom[chosen]
    )
    palette = None if unknowns.palette is None else unknowns.palette[chosen]
    return Unknowns(unknowns.codes[chosen], pose, palette)


def mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Over pictures, by figure."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in FIGURES}
