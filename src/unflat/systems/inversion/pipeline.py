"""An encoder together with the generator that it was trained on, as one file holds them.

model = load("runs/cars/model.safetensors")
guess = model.encoder(images)            # where, what, and of which code
model.objects.pictures(codes, camera, model.side)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unflat.errors import UserError
from unflat.geometry import Camera
from unflat.geometry.pnp import PoseEstimate
from unflat.geometry.published_pose import camera_from_pose, pose_from_camera
from unflat.rendering import Casting
from unflat.systems.gan.generator import Form, Made
from unflat.systems.gan.pipeline import SYSTEM as GENERATORS
from unflat.systems.gan.pipeline import ObjectModel, cameras_to_json, from_weights
from unflat.systems.inversion.compare import Comparison, Seen, difference
from unflat.systems.inversion.encoder import Config, Encoder, ObjectGuess, build
from unflat.systems.inversion.fit import FitConfig, Fitted, Unknowns, fit
from unflat.systems.inversion.framing import Window
from unflat.systems.inversion.known import off_ray
from unflat.systems.inversion.palette import fit_palette
from unflat.systems.inversion.pose import Judged, PoseSearch, find_poses, judge, search_of
from unflat.systems.inversion.recipe import SYSTEM, in_rows
from unflat.training.model_file import load_part, load_weights, read_header

_ENCODER, _GENERATOR = "encoder.", "generator."

_FARTHEST_ASTRAY = 0.3  # world units from its ray; a point farther away counts as this far


class Start(NamedTuple):
    """What an encoder says of a batch of pictures."""

    unknowns: Unknowns
    """Codes, poses, and the palettes that suit the pictures best."""
    guess: ObjectGuess
    """As the encoder gave it."""
    estimates: list[PoseEstimate]
    """Cameras of each picture, and what is wrong where there are none."""
    judged: Judged
    """Which of them it is."""


class InversionModel:
    """What finds an object behind a picture: an encoder, and the generator it knows."""

    def __init__(
        self, encoder: Encoder, objects: ObjectModel, side: int, header: dict[str, Any]
    ) -> None:
        """A model in evaluation mode.

        Args:
            encoder: with its weights.
            objects: the generator, with cameras like those it learned from.
            side: of the pictures that the encoder learned from, pixels.
            header: of its file.
        """
        self.encoder, self.objects = encoder.eval().requires_grad_(False), objects
        self.side, self.header = side, header
        objects.generator.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.encoder.parameters()).device

    @torch.no_grad()
    def start(self, seen: Seen, search: PoseSearch | None = None) -> Start:
        """What the encoder guesses, with the best camera and palette for it.

        Args:
            seen: pictures of single objects.
            search: how cameras are looked for; among focal lengths like those that the generator
                learned from if not given.
        """
        how = search or search_of(self.objects.camera[1:])
        guess = self.encoder(seen.image)
        maker = self.objects.generator
        codes = guess.w[:, None].expand(-1, maker.body.codes, -1)
        form = maker.form(codes)

        def cost(camera: Camera) -> Tensor:
            pictures, views = camera.batch_shape
            window = Window(*(each.repeat_interleave(views, 0) for each in seen.window))
            flat = window.camera(_flat(camera))
            made = maker.picture(form, codes, in_rows(flat, views), self.side)
            image, opacity = (
                each.repeat_interleave(views, 0) for each in (seen.image, seen.opacity)
            )
            off = (made.image - image).abs().mean((1, 2, 3))
            off = off + (made.opacity - opacity).abs().mean((1, 2, 3))
            points, there = (
                each.repeat_interleave(views, 0) for each in (guess.points, guess.opacity)
            )
            astray = off_ray(flat, points).clamp(max=_FARTHEST_ASTRAY)
            astray = (astray * there).sum((1, 2, 3)) / there.sum((1, 2, 3)).clamp(min=1.0)
            return (off + how.map_weight * astray).unflatten(0, (pictures, views))

        estimates = find_poses(guess, seen.window, how)
        judged = judge(estimates, self.objects.camera[0], cost)
        pose = pose_from_camera(judged.camera)
        palette = form.palette
        if palette is not None:
            camera = seen.window.camera(judged.camera)
            shares = maker.seen(form, camera, self.side).features
            palette = fit_palette(
                shares, seen.image, seen.opacity, palette, background=maker.background
            )
        return Start(Unknowns(codes, pose, palette), guess, estimates, judged)

    def render(
        self,
        unknowns: Unknowns,
        window: Window | None,
        side: int,
        *,
        casting: Casting | None = None,
    ) -> Made:
        """Pictures of what was found, from where it was seen; differentiable.

        Args:
            unknowns: codes, poses, and palettes or none.
            window: part of the whole picture; all of it if not given.
            side: in pixels.
            casting: other samples than the generator's.
        """
        camera = camera_from_pose(unknowns.pose)
        if window is not None:
            camera = window.camera(camera)
        form = self.form(unknowns)
        return self.objects.generator.picture(form, unknowns.codes, camera, side, casting=casting)

    def form(self, unknowns: Unknowns) -> Form:
        """The objects of codes, in their own palette if there is one."""
        form = self.objects.generator.form(unknowns.codes)
        return form if unknowns.palette is None else form._replace(palette=unknowns.palette)

    def refine(
        self,
        start: Unknowns,
        seen: Seen,
        distance: nn.Module,
        config: FitConfig,
        *,
        comparison: Comparison | None = None,
        seed: int = 0,
        progress: Callable[[int, int, Unknowns], None] | None = None,
    ) -> Fitted:
        """Some steps from a start towards the pictures.

        Args:
            start: as `start` gives it, or any other.
            seen: the pictures.
            distance: of pairs of pictures, as `unflat.losses.FeatureDistance`.
            config: how many steps, how long, in what.
            comparison: what differs in pictures; the defaults if not given.
            seed: of the warps.
            progress: see `fit`.
        """
        how = comparison or Comparison()
        draws = torch.Generator().manual_seed(seed)
        behind = self.objects.generator.background

        def losses(unknowns: Unknowns) -> Tensor:
            made = self.render(unknowns, seen.window, seen.image.shape[-1])
            return difference(made.image, made.opacity, seen, distance, how, draws, behind)

        return fit(start, losses, config, progress)

    def to(self, device: str) -> "InversionModel":
        """Itself, computing there."""
        self.encoder.to(device)
        self.objects.to(device)
        return self


def load(path: Path | str, device: str = "cpu") -> InversionModel:
    """The model of a file.

    Raises:
        UserError: no such file, a model of another system, or weights that do not fit.
    """
    require_inversion(path)
    weights, header = load_weights(path)
    encoder = build(Config.from_json(header["config"]))
    load_part(encoder, weights, _ENCODER, path)
    objects = from_weights(weights, header["generator"], path)
    return InversionModel(encoder, objects, header["side"], header).to(device)


def require_inversion(path: Path | str, name: str | None = None) -> None:
    """Refuse files of other systems, by their header alone.

    Args:
        path: of the file.
        name: by which a person called it; the path if not given.

    Raises:
        UserError: no such file, or a model that finds no objects in pictures.
    """
    found = read_header(path).get("system", "nothing known")
    if found != SYSTEM:
        hint = (
            f"train an encoder for it: unflat train inversion-encoder --generator {name or path}"
            if found == GENERATORS
            else "see unflat models list"
        )
        raise UserError(
            f"{name or path}: is a model of {found} and finds no objects in pictures; {hint}."
        )


def header_of(objects: ObjectModel) -> dict[str, Any]:
    """What a file says of the generator it holds: config, cameras and card."""
    kept = {name: objects.header[name] for name in ("config", "card") if name in objects.header}
    return {"generator": {**kept, "cameras": cameras_to_json(objects.camera)}}


def weights_of(encoder: dict[str, Tensor], objects: ObjectModel) -> dict[str, Tensor]:
    """All that a file holds.

    Args:
        encoder: state of a recipe's networks.
        objects: the generator.
    """
    generator = objects.generator.state_dict()
    return {**encoder, **{f"{_GENERATOR}{name}": value for name, value in generator.items()}}


def _flat(camera: Camera) -> Camera:
    """Pictures and their views on one axis."""
    return Camera(
        camera_to_world=camera.camera_to_world.flatten(0, 1),
        intrinsics=camera.intrinsics.flatten(0, 1),
        kind=camera.kind,
    )
