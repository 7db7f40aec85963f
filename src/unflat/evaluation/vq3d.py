"""VQ3D stage 1 as the reconstruction task asks it: true cameras through its frame."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unflat.evaluation.reconstructor import Alignment, Mode
from unflat.geometry.camera import Camera
from unflat.geometry.projective import Frame
from unflat.rendering.render import RenderOptions, render
from unflat.systems.vq3d.autoencoder import Autoencoder
from unflat.systems.vq3d.recipe import render_canonical

SAMPLES = 48
"""Intervals of a ray, canonical and novel, unless said otherwise."""
_CPU_CHUNK = 512  # rays at once: what fits a core's cache is a third faster
_NEARER = 1.3  # novel cameras may come so much nearer to the nearest surface than the canonical
_FARTHER = 0.5  # share of the farthest disparity at which their rays end
_LEAST_RATIO = 1e-3  # of far over near disparity


@dataclass(frozen=True, kw_only=True)
class Vq3dScenes:
    """Scenes of a batch of pictures; keeps `unflat.evaluation.reconstructor.Reconstruction`."""

    image: Float[Tensor, "batch 3 height width"]
    """Canonical view."""
    disparity: Float[Tensor, "batch height width"]
    """Expected assumed disparity of the canonical view."""
    termination_variance: Float[Tensor, " batch"]
    """Of normalised disparity, mean over the canonical view."""
    indices: Int[Tensor, "batch tokens codes"] | None
    """Codes."""
    fields: Any
    """One field per picture, with `with_frame`."""
    frame: Frame
    """The model's own: assumed field of view and disparities."""
    samples: int
    """Intervals of a novel view's ray."""

    def render(
        self, index: int, alignment: Alignment, cameras: Camera
    ) -> Float[Tensor, "views 3 height width"]:
        """One scene seen by true cameras, one by one."""
        frame = replace(
            self.frame, focal_true=2 * alignment.focal, a=alignment.scale, b=alignment.shift
        )
        field = self.fields[index].with_frame(frame)
        options = novel_options(frame, self.samples)
        if self.image.device.type == "cpu":
            options = replace(options, chunk=_CPU_CHUNK)
        height, width = self.image.shape[-2:]
        cameras = cameras.to(self.image.device)
        views = [
            render(field, cameras[view : view + 1], height, width, options).rgb
            for view in range(cameras.batch_shape[0])
        ]
        return torch.cat(views)


class Vq3dReconstructor:
    """An autoencoder behind the `Reconstructor` protocol.

    Args:
        model: in evaluation mode.
        name: for the report.
        facts: further things the report should keep, as the file's hash.
        samples: intervals per ray, canonical and novel.
        device: where it runs.
    """

    def __init__(
        self,
        model: Autoencoder,
        name: str,
        *,
        facts: dict[str, object] | None = None,
        samples: int = SAMPLES,
        device: str = "cpu",
    ) -> None:
        self.model = model.eval().to(device)
        self.name = name
        self.facts = facts or {}
        self.samples = samples
        self.device = device
        self.resolution = model.config.resolution
        self.codebook_sizes = model.codebook_sizes or None
        self.modes: tuple[Mode, ...] = ("tokens",)

    def describe(self) -> dict[str, object]:
        """Samples per ray, parameters and what the file says of itself."""
        parameters = sum(weights.numel() for weights in self.model.parameters())
        return {"samples": self.samples, "parameters": parameters, **self.facts}

    @torch.no_grad()
    def reconstruct(
        self,
        images: Float[Tensor, "batch 3 side side"],
        photos: Float[Tensor, "batch 3 height width"],
        mode: Mode,
    ) -> Vq3dScenes:
        """Scenes of some pictures; see `Reconstructor`."""
        quantized = self.model.encode(images.to(self.device)).quantized
        planes = self.model.decode(quantized.tokens)
        field = self.model.field(planes)
        side = photos.shape[-1]
        image, normalised, variance = render_canonical(field, side, self.samples)
        frame = self.model.frame
        disparity = frame.d_far + (frame.d_near - frame.d_far) * normalised[:, 0]
        parts = [type(planes)(*(p[i : i + 1] for p in planes)) for i in range(len(images))]
        return Vq3dScenes(
            image=image,
            disparity=disparity,
            termination_variance=variance.mean(dim=(1, 2, 3)),
            indices=quantized.indices if self.codebook_sizes else None,
            fields=[self.model.field(part) for part in parts],
            frame=frame,
            samples=self.samples,
        )


def novel_options(frame: Frame, samples: int) -> RenderOptions:
    """Where rays of true cameras begin and end: the scene's own disparities with some room.

    Args:
        frame: of the scene; its a and b bring true disparity to the assumed one.
        samples: intervals, even in true disparity.
    """
    nearest = _NEARER * (frame.d_near - frame.b) / frame.a
    farthest = _FARTHER * (frame.d_far - frame.b) / frame.a
    farthest = max(farthest, _LEAST_RATIO * nearest)
    return RenderOptions(samples=samples, near=1 / nearest, far=1 / farthest, spacing="disparity")
