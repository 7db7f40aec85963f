"""What encoders make of a data set's pictures, worked out once: CLIP and autoencoder do not learn.

For each picture the autoencoder's distribution (means and logarithms of variances) and CLIP's
embedding are kept in half precision: 18 kB with the published networks, so 1.8 GB for 100,000
pictures. They lie in the user's cache folder, beside the pictures, and are made again when the data
or the encoders' file change.

    latents = latents_of(model, views, latents_slot(data, split, weights))
    batches = LatentBatches(PosedBatches(views, 1536, together=2), latents)
    ViewRecipe(..., showing=FromLatents(model))
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float16
from torch import Tensor

from unflat.data import PosedBatches, PosedViews, batch_camera
from unflat.data.posed_views import camera_keys
from unflat.data.view_store import Slot, mapped_bytes, slot_of
from unflat.files import atomic_folder
from unflat.geometry.pose import orbit_coordinates
from unflat.systems.zero123.model import Tensors
from unflat.systems.zero123.published import LATENT_SCALE, PublishedViews
from unflat.systems.zero123.showing import Sheet, Shown
from unflat.training.randomness import randn_per_sample

_HEADER = "latents.json"
_PARTS = ("moments", "embeddings")
_AT_ONCE = 16  # pictures through the encoders
_LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE = -30.0, 20.0  # as Stable Diffusion's autoencoder has it

Progress = Callable[[int, int], None]
"""Told (done, all)."""


class Latents(NamedTuple):
    """A row for each picture of a set."""

    moments: Float16[Tensor, "n moments height width"]
    """Means, then logarithms of variances, of the autoencoder's distribution; not scaled."""
    embeddings: Float16[Tensor, "n width"]
    """CLIP's."""


def latents_slot(data: Path, split: str | None, weights: Path, pixels: str) -> Slot:
    """Their place in the cache.

    Args:
        data: the data set.
        split: the part of it.
        weights: a file or folder with the encoders.
        pixels: what CLIP is given; see `unflat.systems.zero123.clip_pixels`.
    """
    files = [*_files(data), *_files(weights)]
    return slot_of(data, [split, weights.resolve(), pixels], files, room="latents")


def latents_of(
    model: PublishedViews, views: PosedViews, slot: Slot | None, progress: Progress | None = None
) -> Latents:
    """What the encoders make of all pictures; from the cache if they have been seen before.

    Args:
        model: with its encoders.
        views: pictures of its size.
        slot: where they are kept; None keeps them in memory alone.
        progress: told after each batch.

    Raises:
        UserError: the cache folder cannot be written.
    """
    if slot is None:
        rows = list(_encoded(model, views, progress))
        return Latents(torch.cat([m for m, _ in rows]), torch.cat([e for _, e in rows]))
    found = find_latents(slot, len(views))
    if found is not None:
        return found
    with atomic_folder(slot.folder, force=True, shown_by=_HEADER) as partial:
        shapes = {}
        with (partial / _PARTS[0]).open("wb") as first, (partial / _PARTS[1]).open("wb") as second:
            for rows in _encoded(model, views, progress):
                for name, file, row in zip(_PARTS, (first, second), rows, strict=True):
                    file.write(row.contiguous().numpy().tobytes())
                    shapes[name] = list(row.shape[1:])
        header = json.dumps({"made_of": slot.made_of, **shapes})
        (partial / _HEADER).write_text(header, encoding="utf-8")
    found = find_latents(slot, len(views))
    assert found is not None
    return found


def find_latents(slot: Slot, count: int) -> Latents | None:
    """What an earlier run has kept, if it is whole and of the same files.

    Args:
        slot: its place.
        count: of the pictures.
    """
    try:
        header = json.loads((slot.folder / _HEADER).read_text(encoding="utf-8"))
        if header["made_of"] != slot.made_of:
            return None
        parts = []
        for name in _PARTS:
            shape = (count, *map(int, header[name]))
            numbers = 2 * torch.Size(shape).numel()
            parts.append(mapped_bytes(slot.folder / name, (numbers,)).view(torch.half).view(shape))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Latents(*parts)


class LatentBatches:
    """Training batches of views, with what was made of the pictures in their place.

    Args:
        batches: choose the pictures; mirror none.
        latents: of all of their views.
    """

    def __init__(self, batches: PosedBatches, latents: Latents) -> None:
        if batches.mirror:
            raise ValueError("what was made of pictures cannot be mirrored")
        self.batches, self.latents = batches, latents

    def batch(self, step: int) -> dict[str, Tensor]:
        """``moments``, ``embedding``, ``camera_to_world`` and ``intrinsics`` of a step."""
        chosen = torch.from_numpy(self.batches.indices(step))
        camera = self.batches.views.camera
        assert camera is not None
        return {
            "moments": self.latents.moments[chosen].float(),
            "embedding": self.latents.embeddings[chosen].float(),
            **camera_keys("", camera[chosen]),
        }


class FromLatents:
    """`Showing` of batches of latents, as the authors have it.

    A target is a sample of the autoencoder's distribution, scaled; a reference is its mean, which
    is not.

    Args:
        model: decodes what a person looks at.
    """

    def __init__(self, model: PublishedViews) -> None:
        self.model = model

    def learned(self, batch: dict[str, Tensor], generator: torch.Generator) -> Shown:
        """See `Showing`."""
        mean, log_variance = batch["moments"].chunk(2, dim=1)
        spread = (0.5 * log_variance.clamp(_LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE)).exp()
        noise = randn_per_sample(batch, self.model.latent_shape, generator)
        camera = batch_camera(batch)
        elevation, _, _ = orbit_coordinates(camera.position)
        clean = (mean + spread * noise) * LATENT_SCALE
        return Shown(clean, _reference(mean, batch["embedding"], elevation), elevation, camera)

    def sheet(self, batch: dict[str, Tensor]) -> Sheet:
        """See `Showing`: pictures as the autoencoder gives them back."""
        mean, _ = batch["moments"].chunk(2, dim=1)
        camera = batch_camera(batch)
        elevation, _, _ = orbit_coordinates(camera.position)
        image = self.model.decode(mean * LATENT_SCALE).image.clamp(0, 1)
        return Sheet(image, _reference(mean, batch["embedding"], elevation), camera)


def _reference(mean: Tensor, embedding: Tensor, elevation: Tensor) -> Tensors:
    return Tensors({"embedding": embedding, "picture": mean, "elevation": elevation})


@torch.no_grad()
def _encoded(
    model: PublishedViews, views: PosedViews, progress: Progress | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Moments and embeddings, some pictures at a time."""
    for start in range(0, len(views), _AT_ONCE):
        image = views.images[start : start + _AT_ONCE].to(model.device).float() / 255
        moments, embedding = model.distribution(image).parameters, model.embed(image)
        yield moments.half().cpu(), embedding.half().cpu()
        if progress is not None:
            progress(min(start + _AT_ONCE, len(views)), len(views))


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*")) if path.is_dir() else [path]
