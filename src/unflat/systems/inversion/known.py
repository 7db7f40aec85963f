"""Pictures whose cameras are known: what they teach an encoder beside the generator's own.

Made pictures are smoother than photographs and renders are, and an encoder that has seen no others
mistakes what it has not seen. Of a picture with a known camera no map is known, but enough of it: a
pixel's point lies on the pixel's ray, which is all that a pose is found from. And the code, made
into an object, has to look like this picture from its camera and like another from that one's.
(Ours; the published encoder learns from made pictures alone.)
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.data import batch_camera
from unflat.data.augment import recolor, turn_hue
from unflat.geometry import Camera
from unflat.geometry.rays import image_rays
from unflat.rendering import Casting
from unflat.systems.gan.generator import Generator
from unflat.systems.inversion.compare import look
from unflat.systems.inversion.framing import Framing, Window, jittered

KEYS = ("image", "mask")
"""What of `unflat.data.PosedBatches` is used beside cameras; `PREFIX` is put before all keys."""

PREFIX = "known_"

_SMALLER = 2  # how many times the pictures by which codes are judged are smaller
_CASTING = Casting(coarse=16)


class Known(NamedTuple):
    """Pictures through the window around their objects, those of one object in a row."""

    image: Float[Tensor, "batch 3 side side"]
    """In [0, 1], before the generator's background."""
    opacity: Float[Tensor, "batch 1 side side"]
    """In [0, 1]."""
    camera: Camera
    """Of the windows."""


def known_pictures(
    batch: dict[str, Tensor],
    framing: Framing,
    side: int,
    views: int,
    background: float,
    places: Float[Tensor, "batch 3"],
    colors: Float[Tensor, "batch 4"],
) -> Known:
    """What an encoder is shown of a batch.

    Args:
        batch: holds `KEYS` and cameras after `PREFIX`; pictures are larger than ``side``.
        framing: how they are changed; they are not turned.
        side: of the windows' pictures, pixels.
        views: pictures in a row that show one object; their colors are changed alike.
        background: grey value behind objects.
        places: normal draws of size and place.
        colors: uniform draws.
    """
    image, mask = (batch[PREFIX + name] for name in KEYS)

    def moved(window: Window) -> Window:
        return jittered(window, framing, places)

    seen = look(image, mask[:, 0], side, background, moved)
    camera = seen.window.camera(batch_camera(batch, PREFIX))
    behind = (1 - seen.opacity) * background
    alike = colors[::views].repeat_interleave(views, dim=0)
    own = recolor((seen.image - behind).clamp(0, 1), alike[:, :3], framing.color)
    own = turn_hue(own, alike[:, 3], framing.hue)
    return Known((own * (seen.opacity > 0) + behind).clamp(0, 1), seen.opacity, camera)


def off_ray(
    camera: Camera, points: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch 1 height width"]:
    """How far each pixel's point is from the pixel's ray, world units."""
    height, width = points.shape[-2:]
    rays = image_rays(camera, height, width)
    way = points.permute(0, 2, 3, 1) - rays.origins
    along = (way * rays.directions).sum(-1, keepdim=True)
    aside = way - along * rays.directions
    return aside.square().sum(-1).add(1e-12).sqrt()[:, None]


def picture_cost(
    generator: Generator, w: Float[Tensor, "batch style_dim"], known: Known, views: int
) -> Float[Tensor, ""]:
    """How unlike its pictures the object of each code looks: mean difference of colors and opacity.

    From two cameras: that of the picture which the code was told from, and of the next of the same
    object.

    Args:
        generator: frozen.
        w: codes told from the pictures.
        known: the pictures.
        views: of one object in a row.
    """
    codes = w[:, None].expand(-1, generator.body.codes, -1)

    def paired(values: Tensor) -> Tensor:
        """Each row, and the next of the same object: the last's next is the first."""
        rows = values.unflatten(0, (-1, views))
        return torch.stack([rows, rows.roll(-1, dims=1)], dim=2).flatten(0, 1)

    camera = replace(
        known.camera,
        camera_to_world=paired(known.camera.camera_to_world),
        intrinsics=paired(known.camera.intrinsics),
    )
    side = known.image.shape[-1] // _SMALLER
    made = generator.picture(generator.form(codes), codes, camera, side, casting=_CASTING)
    wanted = functional.avg_pool2d(torch.cat([known.image, known.opacity], dim=1), _SMALLER)
    wanted = paired(wanted).flatten(0, 1)
    found = torch.cat([made.image, made.opacity], dim=1)
    return (found - wanted).abs().mean()
