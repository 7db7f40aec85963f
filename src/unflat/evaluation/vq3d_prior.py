"""VQ3D stage 2 as the generation task asks it: scenes of classes, and the same prior without 3D."""

import random
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unflat.data.posed import resize_maps
from unflat.data.sample import Reject
from unflat.errors import UserError
from unflat.evaluation.generator import GeneratedViews
from unflat.evaluation.picture_stream import PictureStream
from unflat.evaluation.vq3d import Vq3dReconstructor, Vq3dScenes, turned_views
from unflat.systems.vq3d.generate import SceneMaker, field_of_codes
from unflat.systems.vq3d.recipe import render_canonical

_SAMPLES = 64  # intervals of a canonical ray of a picture


class Vq3dSamples:
    """Scenes drawn from a prior; keeps `unflat.evaluation.generator.Generator`.

    Args:
        maker: the prior with its model of stage 1.
        reconstructor: the same model of stage 1, which renders.
        labels: classes to draw, in turn; see `labels_like`.
        seed: of the series.
    """

    def __init__(
        self,
        maker: SceneMaker,
        reconstructor: Vq3dReconstructor,
        labels: Sequence[str],
        seed: int = 0,
    ) -> None:
        self.maker, self.reconstructor = maker, reconstructor
        self.labels, self.seed = list(labels), seed
        self.name = maker.name

    @property
    def count(self) -> int:
        """As many scenes as labels."""
        return len(self.labels)

    @property
    def rejects(self) -> list[Reject]:
        """Nothing is read."""
        return []

    def describe(self) -> dict[str, object]:
        """Both models, how tokens are drawn, and what the scenes are of."""
        return {**_facts(self.maker), "seed": self.seed, "stage 1": self.reconstructor.describe()}

    @torch.no_grad()
    def generate(
        self, indices: Sequence[int], angles_deg: Sequence[float], side: int
    ) -> GeneratedViews:
        """Scenes by their numbers, rendered through the field at every angle."""
        labels = [self.labels[number] for number in indices]
        codes = [
            self.maker.draw(label, seed=self.seed, number=number)
            for number, label in zip(indices, labels, strict=True)
        ]
        made = scenes_of_codes(self.reconstructor, torch.cat(codes))
        names = [f"{label} {number}" for label, number in zip(labels, indices, strict=True)]
        return turned_views(self.reconstructor, made, names, indices, labels, angles_deg, side)


class SampledPictures:
    """Pictures of a prior's tokens, without 3D; keeps `Pictures`.

    What a 2D generator over the same tokens gives: an unconditional one where classes are left
    open. As the flat cards of `FlatPictures` they are what the third dimension has to beat.

    Args:
        maker: the prior with its model of stage 1.
        labels: class of each picture; None leaves it open.
        side: in pixels.
        seed: of the series; with the same labels and seed they are the fronts of `Vq3dSamples`.
    """

    def __init__(
        self, maker: SceneMaker, labels: Sequence[str | None], side: int, seed: int = 0
    ) -> None:
        self.maker, self.labels, self.side, self.seed = maker, list(labels), side, seed
        self.rejects: list[Reject] = []
        """Nothing is read."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.labels)

    def describe(self) -> dict[str, object]:
        """The prior, and whether its class is left open."""
        is_open = all(label is None for label in self.labels)
        facts = {"seed": self.seed, "class": "left open" if is_open else "as of the scenes"}
        return {**_facts(self.maker), **facts}

    def label(self, index: int) -> str | None:
        """The class that was asked for."""
        return self.labels[index]

    @torch.no_grad()
    def batch(
        self, indices: Sequence[int]
    ) -> tuple[list[str], list[int], Float[Tensor, "batch 3 side side"]]:
        """Names, numbers and pictures."""
        codes = [
            self.maker.draw(self.labels[number], seed=self.seed, number=number)
            for number in indices
        ]
        model = self.maker.model
        field = field_of_codes(model, torch.cat(codes))
        pictures, _, _ = render_canonical(field, model.config.resolution, _SAMPLES)
        names = [f"picture {number}" for number in indices]
        return names, list(indices), resize_maps(pictures.clamp(0, 1).cpu(), self.side)


def scenes_of_codes(
    reconstructor: Vq3dReconstructor, codes: Int[Tensor, "batch tokens codes"]
) -> Vq3dScenes:
    """The scenes that codes describe, as `Vq3dReconstructor` gives those of pictures."""
    model, side = reconstructor.model, reconstructor.resolution
    fields = [field_of_codes(model, codes[index : index + 1]) for index in range(len(codes))]
    views = [reconstructor.canonical(field, side) for field in fields]
    return reconstructor.scenes_of(fields, views, codes)


def labels_like(real: PictureStream, count: int, seed: int = 0) -> list[str]:
    """Classes in the proportions of the real pictures.

    Every class of the real set once for each of its pictures, shuffled, again and again.

    Args:
        real: pictures whose `label` is known.
        count: how many labels.
        seed: of the shuffling.

    Raises:
        UserError: no picture has a class.
    """
    known = [label for i in range(len(real)) if (label := real.label(i)) is not None]
    if not known:
        raise UserError(f"{real.paths[0]}: tells no classes that the prior knows; give others.")
    random.Random(seed).shuffle(known)
    return [known[number % len(known)] for number in range(count)]


def _facts(maker: SceneMaker) -> dict[str, object]:
    prior = maker.prior
    return {
        "file sha256": maker.sha256,
        "parameters": sum(weights.numel() for weights in prior.parameters()),
        "order": prior.config.order,
        "sampling": vars(maker.sampling),
    }
