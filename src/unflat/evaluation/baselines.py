"""What a reconstruction has to beat: pictures unchanged, or warped by a depth map.

The functions score; the classes are the same methods as reconstructors, so that ``--model copy``,
``mean-color`` and ``depth-warp`` go through all that a system goes through.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.posed import PosedScene, resize_maps
from unflat.evaluation.estimators import DepthEstimator
from unflat.evaluation.reconstructor import Alignment, Mode, true_disparity
from unflat.evaluation.views import canonical_of, novel_of
from unflat.geometry.camera import Camera
from unflat.metrics import psnr
from unflat.rendering.forward_warp import fill_holes, forward_warp

SUBPIXELS = 2
"""Points along a side of a pixel."""
BLEND = 0.05
"""Share of the nearest inverse depth within which colours are averaged."""


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
    canonical = canonical_of(scene.camera)
    return warp_picture(image, inverse_depth, canonical, novel_of(scene.camera), supersample)


def warp_picture(
    image: Float[Tensor, "3 side side"],
    inverse_depth: Float[Tensor, "side side"],
    canonical: Camera,
    cameras: Camera,
    supersample: int = 1,
) -> Float[Tensor, "views 3 side side"]:
    """The picture of one camera moved to others, holes filled from the background beside them.

    Args:
        image: of the canonical camera.
        inverse_depth: of its pixels, 1 / units of the cameras' positions, sky as 0.
        canonical: a batch of one.
        cameras: where to.
        supersample: see `warp`.
    """
    views, side = cameras.batch_shape[0], image.shape[-1]
    image, inverse_depth = (_enlarge(values, supersample) for values in (image, inverse_depth))
    warped = forward_warp(
        image.expand(views, -1, -1, -1),
        inverse_depth.expand(views, -1, -1),
        canonical,
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


@dataclass(frozen=True, kw_only=True)
class BaselineScenes:
    """What a baseline makes of a batch of pictures; keeps `Reconstruction`."""

    image: Float[Tensor, "batch 3 height width"]
    """Its canonical view."""
    disparity: Float[Tensor, "batch height width"] | None = None
    """None for a method without depth, whose every view is the canonical one."""
    termination_variance: None = None
    indices: None = None

    def render(
        self, index: int, alignment: Alignment, cameras: Camera
    ) -> Float[Tensor, "views 3 height width"]:
        """The canonical view unchanged, or warped by the disparity."""
        image = self.image[index]
        if self.disparity is None:
            return image.expand(cameras.batch_shape[0], -1, -1, -1)
        canonical = Camera(
            camera_to_world=torch.eye(4)[None],
            intrinsics=torch.tensor([[alignment.focal, alignment.focal, 0.5, 0.5]]),
        )
        inverse_depth = true_disparity(self.disparity[index], alignment)
        return warp_picture(image, inverse_depth, canonical, cameras)


class Baseline:
    """A method without weights of its own; keeps `Reconstructor`.

    Args:
        name: ``copy``, ``mean-color``, or ``depth-warp``.
        resolution: side at which it is evaluated unless another is asked for.
        depth: for ``depth-warp``.
    """

    codebook_sizes: tuple[int, ...] | None = None

    def __init__(
        self, name: str, resolution: int = 64, depth: DepthEstimator | None = None
    ) -> None:
        self.name, self.resolution, self.depth = name, resolution, depth
        self.modes: tuple[Mode, ...] = (name,)

    def describe(self) -> dict[str, object]:
        """Where the depth comes from."""
        if self.depth is None:
            return {}
        return {"depth": {"name": self.depth.name, **self.depth.describe()}}

    def reconstruct(
        self,
        images: Float[Tensor, "batch 3 side side"],
        photos: Float[Tensor, "batch 3 height width"],
        mode: Mode,
        names: Sequence[str] = (),
    ) -> BaselineScenes:
        """The photos themselves, their mean color, or the photos with a disparity."""
        if mode == "mean-color":
            return BaselineScenes(image=photos.mean(dim=(2, 3), keepdim=True).expand_as(photos))
        if self.depth is None:
            return BaselineScenes(image=photos)
        return BaselineScenes(image=photos, disparity=self.depth.disparity(photos, names))


def _enlarge(values: Tensor, times: int) -> Tensor:
    """Every pixel repeated: colours and surfaces keep their edges."""
    if times == 1:
        return values
    return torch.repeat_interleave(torch.repeat_interleave(values, times, -1), times, -2)
