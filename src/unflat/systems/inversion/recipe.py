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

from unflat.data.augment import recolor, turn_hue
from unflat.geometry import Camera, augment_camera
from unflat.geometry.camera import rigid
from unflat.geometry.pose import rotation_from_vector
from unflat.geometry.rays import pixel_grid
from unflat.rendering import Casting
from unflat.systems.gan.generator import Generator
from unflat.systems.inversion.encoder import Config, Encoder, build
from unflat.systems.inversion.framing import Window, window_of
from unflat.training.randomness import rand_per_sample, randn_per_sample, step_generator
from unflat.training.recipe import decay_groups

SYSTEM = "inversion"
"""Name under which model files are known."""

_FINDING_SIDE = 32  # pixels of the picture that tells where the object is
_FINDING = Casting(coarse=16)
_SHEET = 8  # pictures on a sample sheet
_SURE = 0.9  # opacity above which a pixel is all object
_LEAST_SCALE = 0.002  # of the map's expected error, world units


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How cameras and colors are changed, so that pictures of others are nothing unheard of."""

    around_deg: float = 10.0
    """Standard deviation of a turn of the camera about the object's middle, about each axis: what
    lies between the cameras that a generator's file has kept."""
    turn_deg: float = 5.0
    """Standard deviation of roll."""
    scale: float = 0.1
    """Of the binary logarithm of the window's size, which is the object's otherwise."""
    shift: float = 0.03
    """Of its place, in its sides."""
    color: float = 0.3
    """Largest relative change of brightness, contrast and saturation."""
    hue: float = 0.05
    """Largest turn of hues, as a share of the circle."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the encoder learns, by weights, and from which pictures."""

    points: float = 0.25
    """Of the map: the Laplace cost of its error where the scale is told, else the error itself."""
    opacity: float = 1.0
    """Of the cross-entropy of opacity: by absolute error (the paper's) small objects vanish."""
    code: float = 1.0
    """Of the error of codes, as `code_metric` has it: 1 for an encoder that tells the mean code."""
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


class CameraBatches:
    """Cameras for made-up objects, as a pure function of seed and step.

    Args:
        camera: those to draw from, with one batch axis.
        batch_size: over all processes.
        seed: of the draws.
        rank: which part of a batch this process takes.
        world_size: how many processes share a batch.

    Raises:
        ValueError: the batch can not be shared equally.
    """

    def __init__(
        self, camera: Camera, batch_size: int, *, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size % world_size:
            raise ValueError(f"{batch_size} can not be shared by {world_size} processes")
        self.camera, self.batch_size, self.seed = camera, batch_size, seed
        self.rank, self.world_size = rank, world_size

    def batch(self, step: int) -> dict[str, Tensor]:
        """``camera_to_world`` "batch 4 4" and ``intrinsics`` "batch 4" of this process's part."""
        generator = step_generator(self.seed, step, stream="cameras")
        chosen = torch.randint(len(self.camera.intrinsics), (self.batch_size,), generator=generator)
        own = chosen.chunk(self.world_size)[self.rank]
        return {
            "camera_to_world": self.camera.camera_to_world[own],
            "intrinsics": self.camera.intrinsics[own],
        }


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
        """``points``, ``opacity`` and ``code`` with their weights; beside them plain figures."""
        shown = self.show(batch, generator)
        guess = self.encoder(shown.image)
        weights = self.objective
        distance = (guess.points - shown.points).square().sum(1, keepdim=True).add(1e-12).sqrt()
        cost = distance
        if guess.log_scale is not None:
            scale = guess.log_scale.exp() + _LEAST_SCALE
            cost = distance / scale + 3 * scale.log()  # a Laplace density in three dimensions
        share = shown.opacity.sum().clamp(min=1.0)
        terms = {
            "points": weights.points * (shown.opacity * cost).sum() / share,
            "opacity": weights.opacity
            * functional.binary_cross_entropy(guess.opacity.clamp(1e-6, 1 - 1e-6), shown.opacity),
            "code": weights.code * self._of_codes(guess.w - shown.w),
        }
        sure = shown.opacity > _SURE
        figures = {
            "off": (distance.detach() * sure).sum() / sure.sum().clamp(min=1),
            "iou": _overlap(guess.opacity.detach() > 0.5, shown.opacity > 0.5),
        }
        return {"loss": torch.stack(list(terms.values())).sum(), **terms, **figures}

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
        camera = Camera(camera_to_world=batch["camera_to_world"], intrinsics=batch["intrinsics"])
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
        window = window_of(whole.opacity[:, 0])
        side = window.side * torch.exp2(framing.scale * draws[:, 1])
        middle = window.corner + 0.5 * window.side[:, None]
        middle = middle + framing.shift * side[:, None] * draws[:, 2:4]
        camera = Window(middle - 0.5 * side[:, None], side).camera(camera)
        made = maker.picture(form, codes, in_rows(camera, views), self.side)
        w = codes[:, 0].repeat_interleave(views, dim=0)
        behind = (1 - made.opacity) * maker.background
        own = (made.image - behind).clamp(0, 1)
        colors = rand_per_sample(batch, (4,), generator)
        own = turn_hue(recolor(own, colors[:, :3], framing.color), colors[:, 3], framing.hue)
        image = (own * (made.opacity > 0) + behind).clamp(0, 1)
        opacity = made.opacity.clamp(0, 1)  # rounding may leave a sum above 1
        return Shown(image, opacity, seen_points(camera, made.depth), w)

    @torch.no_grad()
    def sample(self, batch: dict[str, Tensor]) -> Float[Tensor, "3 height width"]:
        """Pictures; the true map and the encoder's, as colors; the true opacity and its."""
        views = self.objective.views
        count = max(_SHEET // views, 1) * views
        first = {name: value[:count] for name, value in batch.items() if value.ndim}
        shown = self.show(first, step_generator(0, 0, first["intrinsics"].device))
        guess = self.encoder(shown.image)
        half = float(self.generator.body.get_buffer("bounds").abs().max())
        maps = (shown.points, guess.points)
        rows = [shown.image, *((0.5 + 0.5 * points / half) * shown.opacity for points in maps)]
        rows += [opacity.expand(-1, 3, -1, -1) for opacity in (shown.opacity, guess.opacity)]
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


def _overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union, of all pictures together."""
    return (one & other).sum() / (one | other).sum().clamp(min=1)
