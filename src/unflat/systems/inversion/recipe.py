"""How the encoder learns: from the frozen generator's own pictures, of which everything is known.

A step makes objects of random latents, looks at them through cameras like those that the generator
learned from, a little turned, through a window around the object, recolors them, and asks the
encoder where on the object each pixel is, what is object at all, and of which code it was made
(arXiv 2211.11674, section 3.2; the window, the camera's changes and the map's confidence are ours).
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.data import batch_camera, camera_keys
from unflat.data.augment import recolor, turn_hue
from unflat.geometry import Camera, augment_camera
from unflat.geometry.camera import rigid
from unflat.geometry.pose import rotation_from_vector
from unflat.geometry.rays import pixel_grid
from unflat.rendering import Casting
from unflat.systems.gan.generator import Generator
from unflat.systems.inversion.encoder import Config, Encoder, build
from unflat.systems.inversion.framing import Framing, jittered, window_of
from unflat.systems.inversion.known import (
    KEYS,
    PREFIX,
    Known,
    known_pictures,
    off_ray,
    picture_cost,
)
from unflat.training.randomness import rand_per_sample, randn_per_sample, step_generator
from unflat.training.recipe import BatchSource, decay_groups

SYSTEM = "inversion"
"""Name under which model files are known."""

_FINDING_SIDE = 32  # pixels of the picture that tells where the object is
_FINDING = Casting(coarse=16)
_SHEET = 8  # pictures on a sample sheet
_SURE = 0.9  # opacity above which a pixel is all object
_LEAST_SCALE = 0.002  # of the map's expected error, world units


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the encoder learns, by weights, and from which pictures."""

    points: float = 0.25
    """Of the map: the Laplace cost of its error where the scale is told, else the error itself."""
    opacity: float = 1.0
    """Of the cross-entropy of opacity: by absolute error (the paper's) small objects vanish."""
    code: float = 1.0
    """Of the error of codes, as `code_metric` has it: 1 for an encoder that tells the mean code."""
    rays: float = 1.0
    """Of the distances of points from the rays of known pictures, as `points` has it."""
    picture: float = 4.0
    """Of how unlike known pictures the objects of their codes look."""
    views: int = 4
    """Pictures of an object, one after the other in a batch: made sooner than as many objects."""
    framing: Framing = Framing()
    """How the generator's pictures are changed."""


class Shown(NamedTuple):
    """Pictures of made-up objects, and what is true of them."""

    image: Float[Tensor, "batch 3 side side"]
    """In [0, 1]."""
    opacity: Float[Tensor, "batch 1 side side"]
    """In [0, 1]."""
    points: Float[Tensor, "batch 3 side side"]
    """Object world; 0 where nothing is."""
    w: Float[Tensor, "batch style_dim"]
    """Their code."""
    camera: Camera
    """Of the windows."""


class CameraBatches:
    """Cameras for made-up objects, as a pure function of seed and step.

    Args:
        camera: those to draw from, with one batch axis.
        batch_size: over all processes.
        seed: of the draws.
        rank: which part of a batch this process takes.
        world_size: how many processes share a batch.
        known: as many pictures with their cameras go with each batch.

    Raises:
        ValueError: the batch can not be shared equally.
    """

    def __init__(
        self,
        camera: Camera,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        known: BatchSource | None = None,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(f"{batch_size} can not be shared by {world_size} processes")
        self.camera, self.batch_size, self.seed = camera, batch_size, seed
        self.rank, self.world_size, self.known = rank, world_size, known

    def batch(self, step: int) -> dict[str, Tensor]:
        """``camera_to_world`` "batch 4 4" and ``intrinsics`` "batch 4" of this process's part.

        With known pictures also their ``KEYS``, see `unflat.systems.inversion.known`.
        """
        generator = step_generator(self.seed, step, stream="cameras")
        chosen = torch.randint(len(self.camera.intrinsics), (self.batch_size,), generator=generator)
        own = chosen.chunk(self.world_size)[self.rank]
        batch = camera_keys("", self.camera[own])
        if self.known is not None:
            beside = self.known.batch(step)
            batch |= {f"{PREFIX}{name}": beside[name] for name in KEYS}
            batch |= camera_keys(PREFIX, batch_camera(beside))
        return batch


class EncoderRecipe:
    """An encoder for one generator, as the training loop wants it."""

    def __init__(
        self,
        config: Config,
        generator: Generator,
        side: int,
        *,
        objective: Objective | None = None,
        metric: Float[Tensor, "style_dim style_dim"] | None = None,
        about: dict[str, Any] | None = None,
    ):
        """A recipe with first weights.

        Args:
            config: of the encoder; its ``style_dim`` is the generator's.
            generator: made with a `MappingNetwork` that is told nothing but a latent; frozen here.
            side: of the pictures in pixels.
            objective: the defaults if not given.
            metric: of errors in codes (`code_metric`); the plain mean square if not given.
            about: what else the model file has to say, as of which generator it is.
        """
        self.config, self.side = config, side
        self.objective = objective or Objective()
        self.generator = generator.eval().requires_grad_(False)
        self.encoder: Encoder = build(config)
        self.about, self.metric = about or {}, metric
        self.networks: nn.Module = nn.ModuleDict({"encoder": self.encoder})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for AdamW."""
        return decay_groups(self.networks)

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Terms with their weights, those of known pictures last; beside them plain figures."""
        shown = self.show(batch, generator)
        known = self._known(batch, generator)
        pictures = shown.image if known is None else torch.cat([shown.image, known.image])
        both, count = self.encoder(pictures), len(shown.image)
        guess, weights = both.part(slice(count)), self.objective
        distance = (guess.points - shown.points).square().sum(1, keepdim=True).add(1e-12).sqrt()
        terms = {
            "points": weights.points * _map_cost(distance, shown.opacity, guess.log_scale, 3),
            "opacity": weights.opacity * _opacity_cost(guess.opacity, shown.opacity),
            "code": weights.code * self._of_codes(guess.w - shown.w),
        }
        sure = shown.opacity > _SURE
        figures = {
            "off": (distance.detach() * sure).sum() / sure.sum().clamp(min=1),
            "iou": _overlap(guess.opacity.detach() > 0.5, shown.opacity > 0.5),
        }
        if known is not None:
            guess = both.part(slice(count, None))
            distance = off_ray(known.camera, guess.points)
            cost = picture_cost(self.generator, guess.w, known, weights.views)
            terms |= {
                "rays": weights.rays * _map_cost(distance, known.opacity, guess.log_scale, 2),
                "outline": weights.opacity * _opacity_cost(guess.opacity, known.opacity),
                "picture": weights.picture * cost,
            }
            sure = known.opacity > _SURE
            figures["off_ray"] = (distance.detach() * sure).sum() / sure.sum().clamp(min=1)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms, **figures}

    def _known(self, batch: dict[str, Tensor], generator: torch.Generator) -> Known | None:
        """Known pictures, if the batch holds any."""
        if f"{PREFIX}image" not in batch:
            return None
        return known_pictures(
            batch,
            self.objective.framing,
            self.side,
            self.objective.views,
            self.generator.background,
            randn_per_sample(batch, (3,), generator),
            rand_per_sample(batch, (4,), generator),
        )

    def _of_codes(self, error: Float[Tensor, "batch style_dim"]) -> Float[Tensor, ""]:
        """How much errors in codes count."""
        if self.metric is None:
            return error.square().mean()
        return (error @ self.metric.to(error).mT).square().sum(1).mean()

    @torch.no_grad()
    def show(self, batch: dict[str, Tensor], generator: torch.Generator) -> Shown:
        """Objects of random latents through a batch's cameras, changed as `Framing` says.

        Raises:
            ValueError: the batch is no multiple of the views of an object.
        """
        framing, maker = self.objective.framing, self.generator
        camera = batch_camera(batch)
        draws = randn_per_sample(batch, (7,), generator)
        around = rotation_from_vector(draws[:, 4:] * torch.pi / 180 * framing.around_deg)
        about = rigid(around, torch.zeros_like(draws[:, 4:]))
        camera = replace(camera, camera_to_world=about @ camera.camera_to_world)
        turn = draws[:, 0] * torch.pi / 180 * framing.turn_deg
        still = torch.ones_like(turn), torch.zeros_like(draws[:, :2])
        camera = augment_camera(camera, turn, *still)
        latents = randn_per_sample(batch, (maker.latent_dim,), generator)
        views = self.objective.views
        if len(latents) % views:
            raise ValueError(f"{len(latents)} pictures are not {views} of each object")
        codes = maker.codes(latents[::views])
        form = maker.form(codes)
        rows = in_rows(camera, views)
        whole = maker.picture(form, codes, rows, _FINDING_SIDE, casting=_FINDING)
        window = jittered(window_of(whole.opacity[:, 0]), framing, draws[:, 1:4])
        camera = window.camera(camera)
        made = maker.picture(form, codes, in_rows(camera, views), self.side)
        w = codes[:, 0].repeat_interleave(views, dim=0)
        behind = (1 - made.opacity) * maker.background
        own = (made.image - behind).clamp(0, 1)
        colors = rand_per_sample(batch, (4,), generator)
        own = turn_hue(recolor(own, colors[:, :3], framing.color), colors[:, 3], framing.hue)
        image = (own * (made.opacity > 0) + behind).clamp(0, 1)
        opacity = made.opacity.clamp(0, 1)  # rounding may leave a sum above 1
        return Shown(image, opacity, seen_points(camera, made.depth), w, camera)

    @torch.no_grad()
    def sample(self, batch: dict[str, Tensor]) -> Float[Tensor, "3 height width"]:
        """Pictures; the true map and the encoder's, as colors; the true opacity and its.

        Then known pictures, the encoder's map of them, and the objects of its codes.
        """
        views = self.objective.views
        count = max(_SHEET // views, 1) * views
        first = {name: value[:count] for name, value in batch.items() if value.ndim}
        generator = step_generator(0, 0, first["intrinsics"].device)
        shown, known = self.show(first, generator), self._known(first, generator)
        guess = self.encoder(shown.image)
        half = float(self.generator.body.get_buffer("bounds").abs().max())
        maps = (shown.points, guess.points)
        rows = [shown.image, *((0.5 + 0.5 * points / half) * shown.opacity for points in maps)]
        rows += [opacity.expand(-1, 3, -1, -1) for opacity in (shown.opacity, guess.opacity)]
        if known is not None:
            guess = self.encoder(known.image)
            rows += [known.image, (0.5 + 0.5 * guess.points / half) * known.opacity]
            codes = guess.w[:, None].expand(-1, self.generator.body.codes, -1)
            made = self.generator.picture(
                self.generator.form(codes), codes, known.camera, self.side
            )
            rows.append(made.image)
        return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).clamp(0, 1)

    def after_step(self, step: int) -> dict[str, float]:
        """Nothing."""
        return {}

    def config_json(self) -> dict[str, Any]:
        """The system, its config, and what was said of the generator."""
        return {
            "system": SYSTEM,
            "config": asdict(self.config),
            "loss": asdict(self.objective),
            "side": self.side,
            **self.about,
        }


def in_rows(camera: Camera, views: int) -> Camera:
    """With an axis of objects, then one of their views."""
    return Camera(
        camera_to_world=camera.camera_to_world.unflatten(0, (-1, views)),
        intrinsics=camera.intrinsics.unflatten(0, (-1, views)),
        kind=camera.kind,
    )


def seen_points(
    camera: Camera, depth: Float[Tensor, "batch height width"]
) -> Float[Tensor, "batch 3 height width"]:
    """Where on the object each pixel looks, world units; 0 where depth is infinite."""
    height, width = depth.shape[-2:]
    uv = pixel_grid(height, width, depth.device).flatten(0, 1).expand(len(depth), -1, -1)
    is_there = depth.isfinite()
    finite = torch.where(is_there, depth, 1.0)
    points = camera.unproject(uv, finite.flatten(1)).mT.unflatten(2, (height, width))
    return torch.where(is_there[:, None], points, 0.0)


def _map_cost(
    distance: Float[Tensor, "batch 1 side side"],
    opacity: Float[Tensor, "batch 1 side side"],
    log_scale: Float[Tensor, "batch 1 side side"] | None,
    dimensions: int,
) -> Float[Tensor, ""]:
    """Mean over what is there: of a Laplace density in so many dimensions, or plain distance."""
    cost = distance
    if log_scale is not None:
        scale = log_scale.exp() + _LEAST_SCALE
        cost = distance / scale + dimensions * scale.log()
    return (opacity * cost).sum() / opacity.sum().clamp(min=1.0)


def _opacity_cost(guess: Tensor, truth: Tensor) -> Float[Tensor, ""]:
    return functional.binary_cross_entropy(guess.clamp(1e-6, 1 - 1e-6), truth)


def _overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union, of all pictures together."""
    return (one & other).sum() / (one | other).sum().clamp(min=1)
