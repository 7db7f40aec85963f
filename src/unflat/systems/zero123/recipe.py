"""How view models learn: pairs of pictures of one object, noise, and what the network says of it.

Liu et al., arXiv 2303.11328, section 3, and their code: a picture of an object is the reference,
another picture of the same object is made noisy, and the network is told the first and the pose of
the second. So that guidance is possible, the reference's embedding and picture are dropped for
some.
"""

from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.model import Tensors, ViewModel, denoise
from unflat.systems.zero123.sampler import Sampler, sample
from unflat.systems.zero123.schedule import TIMESTEPS, timesteps
from unflat.systems.zero123.showing import FromPictures, Showing
from unflat.training.randomness import rand_per_sample, randn_per_sample

SYSTEM = "zero123"
_SHEET_STEPS = 12
_FAINT = 0.2  # share of noise below which errors do not count more


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is shown, and what is left out."""

    views: int = 4
    """Pictures in a row of a batch that show one object; each is the reference of another."""
    drop: float = 0.05
    """Share of pairs that lose only the embedding, as many only the picture, as many both;
    published: 0.05."""
    drop_height: float = 0.5
    """Share of pairs that are not told how high the reference was taken; small models only."""
    still: float = 0.0
    """Share of batches whose targets are the references themselves; published: none."""
    noisy: float = 1.0
    """How much oftener noisy timesteps are drawn, as the power of their density plus one: 1 is
    evenly (published), 2 in proportion to the timestep. Where things are is decided early."""
    mirror: bool = True
    """Mirror half of the objects."""
    recolor: float = 0.5
    """Share of objects whose red, green and blue change places."""


@runtime_checkable
class Learning(Protocol):
    """What a view model has besides, so that it can learn."""

    network: nn.Module
    """All that learns, and is saved."""

    def forget(
        self,
        reference: Tensors,
        embedding: Bool[Tensor, " batch"],
        picture: Bool[Tensor, " batch"],
        height: Bool[Tensor, " batch"],
    ) -> Tensors:
        """References of which something is not told."""
        ...

    def own_terms(
        self, reference: Tensors, elevation: Float[Tensor, " batch"]
    ) -> dict[str, Float[Tensor, ""]]:
        """What is minimised besides, by name."""
        ...

    def learning_groups(self) -> list[dict[str, Any]]:
        """Parameters by learning rate."""
        ...


def dropped(
    chance: Float[Tensor, " batch"], share: float
) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """For each pair whether its embedding and whether its picture is dropped, as published.

    Embedding if u < 2 p, picture if p <= u < 3 p: a share p loses the embedding alone, p both, and
    p the picture alone.

    Args:
        chance: u, uniform in [0, 1).
        share: p.
    """
    return chance < 2 * share, (chance >= share) & (chance < 3 * share)


class ViewRecipe:
    """The `Recipe` of any view model that can learn.

    Args:
        model: makes the views.
        objective: what is shown.
        config: how the model can be built again, for the file.
        learning: how the model learns; the model itself if not given.
        showing: what a batch shows; its pictures, encoded by the model, if not given.
    """

    def __init__(
        self,
        model: ViewModel,
        objective: Objective,
        config: dict[str, Any],
        *,
        learning: Learning | None = None,
        showing: Showing | None = None,
    ) -> None:
        if learning is None:
            if not isinstance(model, Learning):
                raise TypeError(f"{type(model).__name__} cannot learn")
            learning = model
        self.model, self.learning, self.objective = model, learning, objective
        self.showing = showing or FromPictures(
            model, objective.views, objective.mirror, objective.recolor
        )
        self.networks = learning.network
        self._config = config

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `Recipe`."""
        return self.learning.learning_groups()

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Recipe`."""
        model, objective = self.model, self.objective
        clean, reference, elevation, camera = self.showing.learned(batch, generator)
        draws = rand_per_sample(batch, (3,), generator)
        embedding, picture = dropped(draws[:, 0], objective.drop)
        other = self._partners(len(clean), generator)
        own = self.learning.own_terms(reference, elevation)
        reference = self.learning.forget(
            reference, embedding, picture, draws[:, 1] < objective.drop_height
        )
        condition = model.condition(reference, RelativePose.between(camera, camera[other]))
        target = clean[other]
        timestep = (draws[:, 2] ** (1 / objective.noisy) * TIMESTEPS).long()
        noise = randn_per_sample(batch, model.latent_shape, generator)
        noisy = model.schedule.add_noise(target, noise, timestep)
        said = model.predict(noisy, timestep, condition)
        wanted = noise if model.prediction == "noise" else target
        loss = (said.float() - wanted).square().mean(dim=(1, 2, 3))
        if model.prediction == "clean":
            # as if velocity were compared (arXiv 2511.13720), but for the faintest noise
            loss = loss / model.schedule.at(timestep, loss)[1].clamp_min(_FAINT) ** 2
        is_noisy = (timestep >= TIMESTEPS // 2).float()
        total = sum(own.values(), loss.mean())
        return {
            "loss": total,
            **{name: value.detach() for name, value in own.items()},
            "noisy half": (loss.detach() * is_noisy).sum() / is_noisy.sum().clamp_min(1),
        }

    @torch.no_grad()
    def sample(self, batch: dict[str, Tensor]) -> Float[Tensor, "3 height width"]:
        """Rows: references, true views, made views without and with guidance."""
        model = self.model
        image, reference, camera = self.showing.sheet(batch)
        other = _next_of_group(len(image), self.objective.views, 1).to(image.device)
        condition = model.condition(reference, RelativePose.between(camera, camera[other]))
        generator = torch.Generator(image.device).manual_seed(0)
        noise = torch.randn(
            (len(image), *model.latent_shape), generator=generator, device=image.device
        )
        rows = [image, image[other]]
        for scale in (1.0, 3.0):
            *_, last = sample(
                lambda x, t, scale=scale: denoise(model, x, t, condition, scale),
                model.schedule,
                noise,
                timesteps(_SHEET_STEPS, "trailing"),
                Sampler(),
            )
            rows.append(model.decode(last.latent).image.clamp(0, 1))
        return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)

    def after_step(self, step: int) -> dict[str, float]:
        """See `Recipe`; nothing."""
        return {}

    def config_json(self) -> dict[str, Any]:
        """See `Recipe`."""
        return {"system": SYSTEM, **self._config, "loss": asdict(self.objective)}

    def _partners(self, count: int, generator: torch.Generator) -> Tensor:
        """For each reference, which picture of the same object is its target."""
        views = self.objective.views
        is_still = torch.rand((), generator=generator, device=generator.device)
        if float(is_still) < self.objective.still:
            return torch.arange(count, device=generator.device)
        shift = 1 + int(torch.randint(views - 1, (), generator=generator, device=generator.device))
        return _next_of_group(count, views, shift).to(generator.device)


def _next_of_group(count: int, views: int, shift: int) -> Tensor:
    """Numbers of pictures, each that of a later one of its group, in a ring."""
    numbers = torch.arange(count)
    group = numbers - numbers % views
    size = torch.minimum(torch.tensor(views), count - group)
    return group + (numbers % views + shift) % size
