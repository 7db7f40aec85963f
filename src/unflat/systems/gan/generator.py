"""What all generators of objects are made of: a mapping, a body, rays, and maybe a 2D network.

    latent --mapping--> code --body--> Form (field, palette) --rays--> features --paint--> picture

A system chooses the parts (`build` in its own file); how they work together stands here.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.fields import FeatureDecoder, PaletteField, TriplaneField, mix
from unflat.fields.field import Field
from unflat.fields.siren import DistanceSirenField, SirenField
from unflat.geometry import Camera
from unflat.nn.stylegan import SuperResolution
from unflat.rendering import Casting, OccupancyGrid, cast
from unflat.rendering.cast import Cast

_COLORS = 3


@runtime_checkable
class Narrowing(Protocol):
    """A field of features that knows how to give fewer of them."""

    def first(self, count: int) -> Field:
        """A field of its own that gives the first so many features alone."""
        ...


class Form(NamedTuple):
    """A batch of objects as a body makes it."""

    field: Field
    """Density and features, in a box of the object world."""
    palette: Float[Tensor, "batch k 3"] | None = None
    """Colours among which the features choose; None: the first three features are the colour."""

    def paint(
        self, features: Float[Tensor, "pictures channels height width"]
    ) -> Float[Tensor, "pictures 3 height width"]:
        """Colours of rendered features; each object may have been seen several times in a row."""
        if self.palette is None:
            return features[:, :3]
        palette = self.palette.repeat_interleave(len(features) // len(self.palette), dim=0)
        return mix(features.permute(0, 2, 3, 1), palette).permute(0, 3, 1, 2)

    def scene(self) -> Field:
        """The field of colours: what a Scene holds, and needs no generator to be seen."""
        field = self.field
        if self.palette is not None:
            return PaletteField(field, self.palette)
        if isinstance(field, TriplaneField):
            assert isinstance(field.decoder, FeatureDecoder)
            return TriplaneField(field.planes, field.decoder.first(_COLORS), field.bounds)
        if isinstance(field, SirenField):
            return SirenField(field.network.first(_COLORS), field.film, field.bounds)
        if isinstance(field, Narrowing):
            return field.first(_COLORS)
        assert isinstance(field, DistanceSirenField)
        network = field.network.first(_COLORS)
        return DistanceSirenField(network, field.film, field.density, field.bounds)


class Made(NamedTuple):
    """Pictures of a batch of objects."""

    image: Float[Tensor, "batch 3 side side"]
    """About [0, 1], over the background."""
    raw: Float[Tensor, "batch 3 raw raw"]
    """What the rays brought, before a 2D network; the image itself if there is none."""
    opacity: Float[Tensor, "batch 1 raw raw"]
    """Share of light that the object keeps."""
    depth: Float[Tensor, "batch raw raw"]
    """Along the optical axis, world units; infinite where nothing is. Without gradients."""


@runtime_checkable
class Body(Protocol):
    """Codes to forms.

    A body may have ``lr_scales``: parts by name, and their learning rates as shares of the
    generator's.
    """

    codes: int
    """How many codes it takes: one for each layer."""

    def __call__(self, codes: Tensor) -> Form:
        """A batch of objects."""
        ...


@dataclass(frozen=True, kw_only=True)
class Skipping:
    """Empty space that rays need not ask about, found anew for every batch."""

    resolution: int = 16
    """Cells on a side of the box."""
    threshold: float = 0.05
    """Density up to which a cell is empty."""


class Generator(nn.Module):
    """Latents to objects, objects to pictures."""

    def __init__(
        self,
        mapping: nn.Module,
        body: nn.Module,
        casting: Casting,
        *,
        background: float = 1.0,
        decoder: SuperResolution | None = None,
        scale: int = 1,
        skipping: Skipping | None = None,
    ):
        """Parts of a generator.

        Args:
            mapping: latents to codes, as `unflat.nn.stylegan.MappingNetwork` and
                `unflat.nn.siren.FilmMapping`; with a ``condition_dim`` it is told a camera.
            body: a `Body`.
            casting: how rays are sampled.
            background: grey value behind objects.
            decoder: sharpens rendered features in 2D; without one the rendered picture is all.
            scale: how many times larger the decoder's side is than the rendered one.
            skipping: leaves out empty space; None asks everywhere.
        """
        super().__init__()
        assert isinstance(body, Body)
        self.mapping, self.body, self.decoder = mapping, body, decoder
        self.casting, self.background, self.scale = casting, background, scale
        self.skipping = skipping
        self.latent_dim: int = mapping.latent_dim  # pyright: ignore[reportAttributeAccessIssue]
        """Numbers of a latent."""

    def codes(
        self,
        latent: Float[Tensor, "batch latent_dim"],
        condition: Float[Tensor, "batch numbers"] | None = None,
        truncation: float = 1.0,
    ) -> Tensor:
        """Codes of latents; see the mapping."""
        if getattr(self.mapping, "condition_dim", 0):
            codes = self.mapping(latent, condition, truncation)
        else:
            codes = self.mapping(latent, truncation=truncation)
        if codes.dim() == 2:
            codes = codes[:, None].expand(-1, self.body.codes, -1)
        return codes

    def form(self, codes: Tensor) -> Form:
        """Objects of codes."""
        return self.body(codes)

    def picture(
        self,
        form: Form,
        codes: Tensor,
        camera: Camera,
        side: int,
        *,
        jitter: Float[Tensor, "batch rays"] | None = None,
        casting: Casting | None = None,
    ) -> Made:
        """Pictures of objects; differentiable.

        Args:
            form: as `form` made it of the codes.
            codes: for the 2D network.
            camera: one for each object, or some: see `unflat.rendering.cast`.
            side: of the pictures in pixels; the rays' are ``scale`` times fewer.
            jitter: see `unflat.rendering.cast`; for side / scale squared rays.
            casting: other samples than usual.

        Raises:
            ValueError: the side is no multiple of the scale.
        """
        if side % self.scale:
            raise ValueError(f"side {side} is no multiple of {self.scale}")
        seen = self.seen(form, camera, side // self.scale, jitter=jitter, casting=casting)
        behind = (1 - seen.opacity) * self.background
        raw = form.paint(seen.features) + behind
        image = raw
        if self.decoder is not None:
            features = torch.cat([raw, seen.features[:, 3:] + behind], dim=1)
            last = codes[:, -1].flatten(1).repeat_interleave(len(raw) // len(codes), dim=0)
            image = (self.decoder(2 * features - 1, last) + 1) / 2
        return Made(image, raw, seen.opacity, seen.depth)

    def seen(
        self,
        form: Form,
        camera: Camera,
        side: int,
        *,
        jitter: Float[Tensor, "batch rays"] | None = None,
        casting: Casting | None = None,
    ) -> Cast:
        """What rays bring before any color is chosen and any 2D network; see `picture`."""
        grid = None
        if self.skipping is not None:
            grid = OccupancyGrid.of(
                form.field,
                batch=camera.batch_shape[0],
                resolution=self.skipping.resolution,
                threshold=self.skipping.threshold,
                points=1,
            )
        how = casting or self.casting
        return cast(form.field, camera, side, how, jitter=jitter, occupancy=grid)
