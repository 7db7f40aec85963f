"""What a reconstruction has to beat: pictures unchanged, or warped by a depth map."""

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.posed import PosedScene, resize_maps
from unflat.evaluation.views import canonical_of, novel_of
from unflat.metrics import psnr
from unflat.rendering.forward_warp import fill_holes, forward_warp

SUBPIXELS = 2
"""Points along a side of a pixel."""
BLEND = 0.05
"""Share of the nearest inverse depth within which colours are averaged."""


def copy_psnr(scene: PosedScene) -> Float[Tensor, " novel"]:
    """PSNR in dB of the canonical picture taken unchanged for each novel view."""
    novel = scene.images[1:]
    return psnr(scene.images[:1].expand_as(novel), novel)


def mean_color_psnr(scene: PosedScene) -> Float[Tensor, ""]:
    """PSNR in dB of the canonical picture's own mean color, on the canonical picture."""
    image = scene.images[:1]
    return psnr(image.mean(dim=(2, 3), keepdim=True).expand_as(image), image)[0]


def warp(
    scene: PosedScene,
    image: Float[Tensor, "3 side side"],
    inverse_depth: Float[Tensor, "side side"],
    supersample: int = 1,
) -> Float[Tensor, "novel 3 side side"]:
    """The picture moved to every novel view, holes filled from the background beside them.

    Args:
        scene: tells the cameras.
        image: of the canonical view.
        inverse_depth: of the canonical view, 1 / scene units, sky as 0.
        supersample: warp at so many times the resolution, then area-average: the strongest
            form, as anti-aliased as the true pictures.
    """
    cameras = novel_of(scene.camera)
    views, side = cameras.batch_shape[0], image.shape[-1]
    image, inverse_depth = (_enlarge(values, supersample) for values in (image, inverse_depth))
    warped = forward_warp(
        image.expand(views, -1, -1, -1),
        inverse_depth.expand(views, -1, -1),
        canonical_of(scene.camera),
        cameras,
        subpixels=SUBPIXELS,
        blend=BLEND if supersample == 1 else 0.0,
    )
    return resize_maps(fill_holes(warped).image, side)


def warp_psnr(
    scene: PosedScene,
    image: Float[Tensor, "3 side side"],
    inverse_depth: Float[Tensor, "side side"],
    supersample: int = 1,
) -> Float[Tensor, " novel"]:
    """PSNR in dB of `warp` on each novel view."""
    return psnr(warp(scene, image, inverse_depth, supersample), scene.images[1:])


def _enlarge(values: Tensor, times: int) -> Tensor:
    """Every pixel repeated: colours and surfaces keep their edges."""
    if times == 1:
        return values
    return torch.repeat_interleave(torch.repeat_interleave(values, times, -1), times, -2)
