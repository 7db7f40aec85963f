"""What pictures from other sides have to beat: no 3D, a warped picture, other objects' views."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from unflat.data.posed_objects import PosedObjects
from unflat.errors import UserError
from unflat.evaluation.estimators import DepthEstimator
from unflat.evaluation.relief import is_whole, outline_depth, placed_depth, solid
from unflat.evaluation.view_maker import as_batch, turned_deg
from unflat.geometry.camera import Camera
from unflat.rendering.forward_warp import Warped, fill_holes, forward_warp

SUBPIXELS = 3
"""Points along a side of a pixel that is warped."""
SIDE = 32
"""Pixels a side at which pictures are compared to find the nearest."""
_CRACK = 2  # pixels: half of what a closing bridges


class Copy:
    """The input unchanged, from wherever it is asked."""

    name, is_random = "copy", False

    def describe(self) -> dict[str, object]:
        """What it does."""
        return {"what": "the input unchanged for every camera"}

    def make(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"],
        reference: Camera,
        cameras: Camera,
        seed: int,
    ) -> Float[Tensor, "views 3 height width"]:
        """The picture itself."""
        return image.expand(cameras.batch_shape[0], -1, -1, -1)


class MeanColor:
    """The outline of the input, filled with the mean color of what it holds."""

    name, is_random = "mean-color", False

    def describe(self) -> dict[str, object]:
        """What it does."""
        return {"what": "the input's mean color over its mask, within its mask, on white"}

    def make(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"],
        reference: Camera,
        cameras: Camera,
        seed: int,
    ) -> Float[Tensor, "views 3 height width"]:
        """A flat picture."""
        # over white a pixel is matte * color + 1 - matte: the white is taken out of the mean
        color = (image - (1 - mask)).sum(dim=(1, 2)) / mask.sum().clamp_min(1e-6)
        flat = color.clamp(0, 1)[:, None, None] * mask + (1 - mask)
        return flat.expand(cameras.batch_shape[0], -1, -1, -1)


class DepthWarp:
    """The input carried to the other camera by a depth map, cracks filled, on white.

    Args:
        depth: tells relative disparity; the outline's own rounded front if not given.
    """

    name, is_random = "depth-warp", False

    def __init__(self, depth: DepthEstimator | None = None) -> None:
        self.depth = depth

    def describe(self) -> dict[str, object]:
        """Where the depth comes from and where it is placed."""
        if self.depth is None:
            return {
                "depth": "sphere: distance to the origin minus sqrt(e (2 R - e)), e the distance "
                "to the outline and R its largest; a plane where there is no mask"
            }
        return {
            "depth": {"name": self.depth.name, **self.depth.describe()},
            "placed": "median and 5th to 95th percentile of the mask's disparity as those of a "
            "sphere about the origin whose outline has the mask's area, cut at the unit box",
        }

    def make(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"],
        reference: Camera,
        cameras: Camera,
        seed: int,
    ) -> Float[Tensor, "views 3 height width"]:
        """The front of the object, turned."""
        if self.depth is None:
            depth = outline_depth(mask, reference)
        else:
            depth = placed_depth(self.depth.disparity(image[None], [""])[0], mask, reference)
        return warp_object(image, mask, depth, reference, cameras)


def warp_object(
    image: Float[Tensor, "3 height width"],
    mask: Float[Tensor, "height width"],
    depth: Float[Tensor, "height width"],
    reference: Camera,
    cameras: Camera,
) -> Float[Tensor, "views 3 height width"]:
    """What the mask covers, moved to other cameras; narrow cracks filled, the rest white.

    Of a picture without a mask (one of the whole frame) every hole is filled.

    Args:
        image: object on white.
        mask: matte; half covered pixels are taken whole.
        depth: along the optical axis, world units.
        reference: camera of the picture, a single one.
        cameras: a batch.
    """
    views = cameras.batch_shape[0]
    # what is not the object is sent to infinity, and left out where it lands
    inverse = torch.where(solid(mask), 1 / depth, 0.0)
    matte = solid(mask).to(image)
    straight = torch.where(matte > 0, (image - (1 - mask)) / mask.clamp_min(0.5), image)
    warped = forward_warp(
        straight.clamp(0, 1).expand(views, -1, -1, -1),
        inverse.expand(views, -1, -1),
        as_batch(reference),
        cameras,
        subpixels=SUBPIXELS,
    )
    seen = warped.visible & (warped.inverse_depth > 0)
    filled = fill_holes(Warped(warped.image, warped.inverse_depth * seen, seen)).image
    return filled if is_whole(mask) else torch.where(_closed(seen)[:, None], filled, 1.0)


class MeanImage:
    """The mean of all pictures of the training split, whatever is asked.

    Args:
        objects: training split at the evaluation's resolution.
    """

    name, is_random = "mean-image", False

    def __init__(self, objects: PosedObjects) -> None:
        self.objects = objects
        self.sums: dict[tuple[int, int], Tensor] = {}
        self.counts: dict[tuple[int, int], int] = {}

    def describe(self) -> dict[str, object]:
        """What it does, and of how many."""
        return {
            "what": "the mean of all training pictures of that size, on white",
            "pictures": sum(self.counts.values()),
        }

    def make(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"],
        reference: Camera,
        cameras: Camera,
        seed: int,
    ) -> Float[Tensor, "views 3 height width"]:
        """The one picture; `UserError` if no training picture has this size."""
        if not self.counts:
            self._read()
        size = (image.shape[1], image.shape[2])
        if size not in self.counts:
            raise UserError(
                f"{self.objects.path}: no training picture has {size[1]}x{size[0]} pixels; "
                "give --resolution."
            )
        mean = (self.sums[size] / self.counts[size]).to(image)
        return mean.expand(cameras.batch_shape[0], -1, -1, -1)

    def _read(self) -> None:
        for index in range(len(self.objects)):
            try:
                images = self.objects[index].images
            except UserError:
                continue  # retrieval, which reads them as well, lists it
            size = (images.shape[2], images.shape[3])
            total = images.double().sum(dim=0)
            self.sums[size] = self.sums[size] + total if size in self.sums else total
            self.counts[size] = self.counts.get(size, 0) + len(images)


class Retrieval:
    """The other views of the training object with the nearest picture.

    Args:
        objects: training split at the evaluation's resolution.

    Raises:
        UserError: not one object could be read.
    """

    name, is_random = "retrieval", False

    def __init__(self, objects: PosedObjects) -> None:
        self.objects = objects
        small, places, poses, intrinsics = [], [], [], []
        reduced = PosedObjects(objects.path, "train", resolution=SIDE)
        for index in range(len(reduced)):
            try:
                item = reduced[index]
            except UserError as error:
                objects.reject(index, error)
                continue
            small.append((item.images * 255).round().to(torch.uint8).flatten(1))
            places += [(index, view) for view in range(len(item.images))]
            poses.append(item.camera.camera_to_world)
            intrinsics.append(item.camera.intrinsics)
        if not small:
            raise UserError(
                f"{objects.path}: no object of its training split could be read; "
                "check it with unflat data check."
            )
        self.small = torch.cat(small)
        self.places = torch.tensor(places)
        self.camera = Camera(camera_to_world=torch.cat(poses), intrinsics=torch.cat(intrinsics))

    def describe(self) -> dict[str, object]:
        """What it does, and among how many."""
        return {
            "what": f"the training picture of least squared difference at {SIDE} px; of its "
            "object, for each camera, the view whose optical axis is turned least from it",
            "references": len(self.places),
        }

    def make(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"],
        reference: Camera,
        cameras: Camera,
        seed: int,
    ) -> Float[Tensor, "views 3 height width"]:
        """Another object's pictures, each from the side nearest to the one asked for."""
        wanted = functional.interpolate(image[None], size=(SIDE, SIDE), mode="area")
        wanted = (wanted * 255).round().flatten(1)
        errors = [(rows.float() - wanted).square().sum(1) for rows in self.small.split(1024)]
        index = int(self.places[int(torch.cat(errors).argmin()), 0])
        rows = torch.nonzero(self.places[:, 0] == index).flatten()
        theirs = self.camera[rows]
        chosen = [
            int(turned_deg(cameras[view], theirs).argmin())
            for view in range(cameras.batch_shape[0])
        ]
        once = sorted(set(chosen))
        item = self.objects.views(index, [int(self.places[rows[view], 1]) for view in once])
        return item.images[[once.index(view) for view in chosen]]


def _closed(seen: Bool[Tensor, "views height width"]) -> Bool[Tensor, "views height width"]:
    """What was seen and the narrow cracks in it: morphological closing."""
    side, reach = 2 * _CRACK + 1, _CRACK
    grown = functional.max_pool2d(seen[:, None].float(), side, 1, reach)
    shrunk = -functional.max_pool2d(functional.pad(-grown, [reach] * 4, value=-1.0), side, 1)
    return (shrunk[:, 0] > 0.5) | seen
