"""How every GAN of objects is trained; what makes a paper special stands in its own file.

A run has up to three parts: the surface learns to be a ball (generators with a distance), known
pictures are reconstructed from a latent of each object (where asked for), then generator and critic
play. One batch of made pictures teaches both players in a step.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.data import batch_camera
from unflat.fields import LaplaceDensity
from unflat.geometry import Camera
from unflat.losses import follow, play
from unflat.losses.path_length import PathLength
from unflat.nn.stylegan import MappingNetwork
from unflat.systems.gan.augment import PoseAugment
from unflat.systems.gan.game import (
    Game,
    blurred,
    camera_angles,
    camera_label,
    shown_made,
    shown_real,
    swapped,
)
from unflat.systems.gan.generator import Form, Generator, Made
from unflat.systems.gan.terms import Moment, Term, sphere_cost
from unflat.training.config import TrainConfig
from unflat.training.distribution import mean_over_processes
from unflat.training.randomness import rand_per_sample, randn_per_sample

_SHEET = 8  # objects on a sample sheet


@dataclass(frozen=True, kw_only=True)
class Start:
    """What comes before the two players meet."""

    sphere: float = 0.0
    """Share of the run in which the surface learns to be a ball; 0 for fields without distance."""
    radius: float = 0.6
    """Of that ball, as a share of half the box."""
    reconstruction: float = 0.0
    """Share of the run in which known objects are reconstructed, each from a latent of its own
    (DeepSDF's auto-decoder, arXiv 1901.05103). Needs posed pictures. A short way to a shape where
    there is no time for an adversarial run from nothing."""
    noise: float = 0.1
    """Standard deviation of what is added to such a latent, so that its neighbours are like it."""
    kept: float = 0.0
    """Share of a batch that goes on to be reconstructed while the players meet."""
    kept_weight: float = 1.0
    """Of that, beside what the critic says."""
    lr: float = 1.0
    """Learning rate at first as a multiple of the game's; it comes down to the game's meanwhile.
    What is known can be learned much faster than what a critic says."""
    views: int = 1
    """How many pictures in a row show the same object, known or made up. Several cost less than as
    many objects."""

    @property
    def is_all(self) -> bool:
        """Whether there is no game."""
        return self.sphere + self.reconstruction >= 1


@runtime_checkable
class Cameras(Protocol):
    """Where made pictures are seen from."""

    def sample(self, numbers: int, generator: torch.Generator) -> Camera:
        """Independent cameras."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A system's networks and objective: what its ``build`` gives."""

    generator: Generator
    critic: nn.Module
    game: Game
    start: Start
    terms: Sequence[Term] = ()
    cameras: Cameras | None = None
    """Where made pictures are seen from; None: from where other pictures of the set are."""


def reconstructing() -> TrainConfig:
    """How a run is run that does nothing but reconstruct: by steps with some memory."""
    return TrainConfig(
        steps=10_000,
        batch_size=32,
        lr=1.5e-2,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        clip_norm=0.0,
        warmup_steps=50,
        ema_decay=0.998,
    )


@runtime_checkable
class Pictured(Protocol):
    """A config that says how large pictures are."""

    @property
    def resolution(self) -> int:
        """Their side in pixels."""
        ...


def playing(config: Pictured, *, steps: int = 150_000, warmup_steps: int = 1000) -> TrainConfig:
    """How StyleGAN2 is trained, and what follows it; steps as in bootstrapped inversion.

    Its 300,000 iterations are 150,000 of each player. Runs on small pictures are short ones, on a
    CPU, that often begin from reconstructed objects: by smaller steps, which fall in the end, since
    the average is young.
    """
    is_short = config.resolution <= 32
    return TrainConfig(
        steps=steps,
        batch_size=32,
        lr=5e-4 if is_short else 2.5e-3,
        betas=(0.5 if is_short else 0.0, 0.99),
        weight_decay=0.0,
        clip_norm=0.0,
        schedule="cosine" if is_short else "constant",
        final_lr_fraction=0.2,
        warmup_steps=min(warmup_steps, 100) if is_short else warmup_steps,
        ema_decay=0.5 ** (32 / 10_000),
    )


class GanRecipe:
    """Generator, critic and their game, as the training loop wants them."""

    def __init__(self, system: str, config: Any, parts: Parts, *, objects: int = 0):
        """A recipe with first weights.

        Args:
            system: its name.
            config: the system's, a dataclass; kept with the weights.
            parts: its networks and objective.
            objects: how many the data set knows; for a start by reconstruction.

        Raises:
            ValueError: a start by reconstruction without objects.
        """
        knows = parts.start.reconstruction > 0 or parts.start.kept > 0
        if knows and objects < 1:
            raise ValueError(
                "to be reconstructed, objects must be known: which picture shows which"
            )
        self.system, self.config, self.parts = system, config, parts
        self.generator, self.game, self.start = parts.generator, parts.game, parts.start
        modules: dict[str, nn.Module] = {"generator": self.generator, "critic": parts.critic}
        modules["terms"] = nn.ModuleList(t for t in parts.terms if isinstance(t, nn.Module))
        if knows:
            modules["latents"] = nn.Embedding(objects, self.generator.latent_dim)
        self.augment: PoseAugment | None = None
        if self.game.augment:  # once the blur is gone, as nerf-from-image does
            self.augment = PoseAugment(self.game.augment, start=self.game.blur_share)
            modules["augment"] = self.augment
        self.networks: nn.Module = nn.ModuleDict(modules)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Generator and latents at the whole learning rate, some at their own share of it."""
        shares = {id(weight): self.game.critic_lr for weight in self.parts.critic.parameters()}
        for name, share in getattr(self.generator.body, "lr_scales", {}).items():
            part = self.generator.body.get_submodule(name)
            shares |= {id(weight): share for weight in part.parameters()}
        groups: dict[float, list[nn.Parameter]] = {}
        for weight in self.networks.parameters():
            groups.setdefault(shares.get(id(weight), 1.0), []).append(weight)
        return [
            {"params": weights, "lr_scale": share, "weight_decay": 0.0}
            for share, weights in groups.items()
        ]

    def lr_factor(self, progress: float) -> float:
        """Above 1 before the game, see `Start`; 1 in it."""
        before = self.start.sphere + self.start.reconstruction
        if progress >= before:
            return 1.0
        return 1 + (self.start.lr - 1) * 0.5 * (1 + math.cos(math.pi * progress / before))

    # -- a step ----------------------------------------------------------------------------------

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Terms of the part of the run that it is in."""
        start = self.start
        draws = _Draws(batch, generator)
        if progress < start.sphere:
            terms = self._ball(draws)
        elif progress < start.sphere + start.reconstruction or start.is_all:
            share = (progress - start.sphere) / start.reconstruction
            count = len(batch["image"])
            terms = self._reconstruct(batch, draws, count, 1.0, share, with_terms=True)
        else:
            whole = 1 - start.sphere - start.reconstruction
            share = (progress - start.sphere - start.reconstruction) / whole
            terms = self._play(batch, draws, share)
            if start.kept:  # whole objects, at least one
                objects = round(start.kept * len(batch["image"]) / start.views)
                kept = max(1, objects) * start.views
                terms |= self._reconstruct(
                    batch, draws, kept, start.kept_weight, 1.0, with_terms=False
                )
        loss = torch.stack([value for name, value in terms.items() if name[0] != "_"]).sum()
        return {"loss": loss, **{name.strip("_"): value for name, value in terms.items()}}

    def _ball(self, draws: "_Draws") -> dict[str, Tensor]:
        form = self.generator.form(self.generator.codes(draws.normal(self._latent_shape)))
        return {"sphere": sphere_cost(form, self.start.radius, draws.uniform((12, 12, 12, 3)))}

    def _reconstruct(
        self,
        batch: dict[str, Tensor],
        draws: "_Draws",
        count: int,
        weight: float,
        progress: float,
        *,
        with_terms: bool,
    ) -> dict[str, Tensor]:
        """Absolute error of colours and squared one of masks, of the first pictures of a batch."""
        views = self.start.views
        latents = self.networks["latents"](batch["object"])  # pyright: ignore[reportIndexIssue]
        latents = (latents + self.start.noise * draws.normal(self._latent_shape))[:count:views]
        camera, side = _camera(batch, "")[:count], batch["image"].shape[-1]
        codes = self.generator.codes(latents, camera_label(camera)[::views])
        form = self.generator.form(codes)
        jitter = draws.uniform(((side // self.generator.scale) ** 2,))[:count]
        made = self.generator.picture(form, codes, _of_each(camera, views), side, jitter=jitter)
        terms = {"color": weight * (made.image - batch["image"][:count]).abs().mean()}
        if made.raw.shape[-1] != side:
            small = functional.interpolate(batch["image"][:count], made.raw.shape[-2:], mode="area")
            terms["raw"] = weight * (made.raw - small).abs().mean()
        if "mask" in batch:
            mask = functional.interpolate(
                batch["mask"][:count], made.opacity.shape[-2:], mode="area"
            )
            terms["mask"] = weight * (made.opacity - mask).square().mean()
        if with_terms:
            terms |= self._terms(codes, form, progress, draws, reconstructs=True)
        return terms

    def _play(
        self, batch: dict[str, Tensor], draws: "_Draws", progress: float
    ) -> dict[str, Tensor]:
        """Both players' terms, from one batch of made pictures."""
        game, image, mask = self.game, batch["image"], batch.get("mask")
        side, fade = game.side_at(progress, image.shape[-1])
        if side != image.shape[-1]:
            image = functional.interpolate(image, (side, side), mode="area")
            mask = None if mask is None else functional.interpolate(mask, (side, side), mode="area")
        real_camera, camera = _camera(batch, ""), _camera(batch, "fake_")
        if self.parts.cameras is not None:
            camera = draws.cameras(self.parts.cameras)
        if self.augment is not None:
            window = self.augment.draw(draws.uniform, draws.normal)
            image = window.picture(image, outside=self.generator.background)
            real_camera = window.camera(real_camera)
            mask = None if mask is None else window.picture(mask, outside=0.0)
            camera = self.augment.draw(draws.uniform, draws.normal).camera(camera)
        label = camera_label(camera)
        told = swapped(label, game.swap_probability(progress), draws.uniform(()))
        views = self.start.views
        codes = self.generator.codes(draws.normal(self._latent_shape)[::views], told[::views])
        form = self.generator.form(codes)
        noise = game.noise_at(progress)
        if noise and hasattr(form.field, "noise"):
            form.field.noise = lambda shape: noise * draws.normal(shape)  # pyright: ignore[reportAttributeAccessIssue]
        jitter = draws.uniform(((side // self.generator.scale) ** 2,))
        made = self.generator.picture(form, codes, _of_each(camera, views), side, jitter=jitter)
        sigma = game.blur_sigma(progress, side)
        real = shown_real(image, mask, game.sees, made.raw.shape[-1])
        fake = shown_made(made, game.sees)
        behind = self.generator.background
        real = blurred(real, game.sees, sigma, behind)
        if game.sees == "dual":
            fake = blurred(fake, game.sees, sigma, behind)
        conditions: dict[str, Any] = {}
        if game.is_told_camera:
            conditions = {
                "real_condition": camera_label(real_camera),
                "fake_condition": label,
            }
        if game.pose_weight:
            conditions |= {"fake_pose": camera_angles(camera), "pose_weight": game.pose_weight}
        gamma = game.r1_gamma * game.r1_every if draws.now(1 / game.r1_every) else 0.0
        with torch.autocast(image.device.type, enabled=False):
            judged = play(
                self.parts.critic if fade == 1 else partial(self.parts.critic, fade=fade),
                real.float(),
                fake.float(),
                gamma,
                top_share=max(game.top_share, 1 - progress * (1 - game.top_share)),
                **conditions,
            )
        if self.augment is not None:
            self.augment.watch(judged.real_logits, progress)
        terms = {
            "fooling": game.fooling_at(progress)
            * follow(judged.generator, judged.slope, fake).mean(),
            "critic": judged.critic.mean(),
            "_real": judged.real_logits.mean().detach(),
            "_fake": judged.fake_logits.mean().detach(),
        }
        if judged.pose_error is not None:
            terms["_pose"] = judged.pose_error.mean()
        return terms | self._terms(codes, form, progress, draws, reconstructs=False)

    def _terms(
        self, codes: Tensor, form: Form, progress: float, draws: "_Draws", *, reconstructs: bool
    ) -> dict[str, Tensor]:
        count = len(codes)
        moment = Moment(
            codes,
            form,
            progress,
            lambda shape: draws.uniform(shape)[:count],
            lambda shape: draws.normal(shape)[:count],
        )
        found: dict[str, Tensor] = {}
        for term in self.parts.terms:
            is_due = draws.now(term.share)
            if is_due and (term.in_reconstruction or not reconstructs):
                for name, cost in term(moment).items():
                    found[name] = cost / term.share
        return found

    @property
    def _latent_shape(self) -> tuple[int]:
        return (self.generator.latent_dim,)

    # -- beside the step -------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, batch: dict[str, Tensor]) -> Float[Tensor, "3 height width"]:
        """Real pictures, then made ones of some latents from two sides, and their opacity."""
        side = batch["image"].shape[-1]
        count = min(_SHEET, len(batch["image"]))
        device = batch["image"].device
        draws = torch.Generator().manual_seed(0)
        latents = torch.randn(count, self.generator.latent_dim, generator=draws).to(device)
        rows = [batch["image"][:count]]
        if "camera_to_world" in batch and "latents" in self.networks:  # pyright: ignore[reportOperatorIssue]
            known = self.networks["latents"](batch["object"][:count])  # pyright: ignore[reportIndexIssue]
            rows.append(self._made(known, _camera(batch, "")[:count], side).image)
        for shift in (0, 1):
            camera = self._sheet_camera(batch, count, shift, draws)
            made = self._made(latents, camera, side)
            rows.append(made.image)
        rows.append(functional.interpolate(made.opacity, (side, side)).expand(-1, 3, -1, -1))
        return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).clamp(0, 1)

    def _made(self, latents: Tensor, camera: Camera, side: int) -> Made:
        codes = self.generator.codes(latents, camera_label(camera))
        return self.generator.picture(self.generator.form(codes), codes, camera, side)

    def _sheet_camera(
        self, batch: dict[str, Tensor], count: int, shift: int, draws: torch.Generator
    ) -> Camera:
        if self.parts.cameras is not None:
            return self.parts.cameras.sample(count, draws)
        camera = _camera(batch, "fake_")
        return replace(
            camera,
            camera_to_world=camera.camera_to_world.roll(shift, 0)[:count],
            intrinsics=camera.intrinsics.roll(shift, 0)[:count],
        )

    def after_step(self, step: int) -> dict[str, float]:
        """Holds what must stay positive, and keeps running means."""
        figures: dict[str, float] = {}
        for module in self.networks.modules():
            if isinstance(module, MappingNetwork):
                module.take_in(mean_over_processes(module.seen))
            elif isinstance(module, PathLength):
                module.after_step()
            elif isinstance(module, LaplaceDensity):
                module.hold()
                figures |= {"alpha": module.thinness.item(), "beta": module.beta.item()}
            elif isinstance(module, PoseAugment):
                module.after_step(step)
                figures["changed"] = module.probability.item()
        return figures

    def config_json(self) -> dict[str, Any]:
        """The system and its config."""
        return {"system": "gan", "config": {"system": self.system, **asdict(self.config)}}


class _Draws:
    """Random numbers of a step."""

    def __init__(self, batch: dict[str, Tensor], generator: torch.Generator):
        self.batch, self.generator = batch, generator

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return rand_per_sample(self.batch, shape, self.generator)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return randn_per_sample(self.batch, shape, self.generator)

    def cameras(self, prior: Cameras) -> Camera:
        """A camera for each sample."""
        if "batch_size" not in self.batch:
            return prior.sample(len(self.batch["image"]), self.generator)
        return prior.sample(int(self.batch["batch_size"]), self.generator)[self.batch["position"]]

    def now(self, share: float) -> bool:
        """True in a share of the steps, alike on every process."""
        number = torch.rand((), generator=self.generator, device=self.generator.device)
        return float(number) < share


def _of_each(camera: Camera, views: int) -> Camera:
    """Cameras in a row as those of objects, so many of each."""
    if views == 1:
        return camera
    return replace(
        camera,
        camera_to_world=camera.camera_to_world.unflatten(0, (-1, views)),
        intrinsics=camera.intrinsics.unflatten(0, (-1, views)),
    )


def _camera(batch: dict[str, Tensor], prefix: str) -> Camera:
    """The cameras of a batch; the identity where it has none (nobody asks then)."""
    if f"{prefix}camera_to_world" not in batch:
        count, device = len(batch["image"]), batch["image"].device
        pose = torch.eye(4, device=device).expand(count, 4, 4)
        return Camera.from_fov(0.9, pose)
    return batch_camera(batch, prefix)
