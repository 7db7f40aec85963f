"""Makers of objects that are none, and of true ones: what a generator of objects stands beside.

A picture has no other sides. Put on a card that stands still it is consistent, but thin from the
side; on a card that turns with the camera it has the right look from everywhere, as the pictures of
a 2D generator have, and no two of its views agree.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from unflat.data.posed_views import PosedViews
from unflat.errors import UserError
from unflat.evaluation.object_maker import ObjectViews
from unflat.geometry import Camera, image_rays, orbit_pose

CARDS = ("flat-card", "turning-card")
"""Makers that need no weights, by the names under which the task takes them as models."""
_RAYS = 2  # a card's pixel is the mean over so many rays by so many


class _Cards:
    """Pictures of a training set, one for each object."""

    def __init__(self, views: PosedViews, chosen: Int[Tensor, " cards"]) -> None:
        self.images: UInt8[Tensor, "cards 3 side side"] = views.images[chosen]
        masks = torch.full_like(views.images[:, 0], 255) if views.masks is None else views.masks
        self.masks: UInt8[Tensor, "cards side side"] = masks[chosen]

    @property
    def count(self) -> int:
        """One object for each picture."""
        return len(self.images)

    def layers(self, numbers: Sequence[int]) -> Float[Tensor, "n 4 side side"]:
        """What the pictures take away from white, and mattes: 0 beside the object."""
        chosen = list(numbers)
        dark = 1 - self.images[chosen].float() / 255
        return torch.cat([dark, self.masks[chosen, None].float() / 255], dim=1)


class FlatCard(_Cards):
    """Pictures on a card that stands in the plane z = 0 and faces the front.

    From the front camera, at the set's mean distance, a card looks as its picture; from behind it
    is seen mirrored, from the side hardly.

    Args:
        views: a training set; of each object the picture that is taken most from the front.

    Raises:
        UserError: the set has no cameras.
    """

    name = "flat-card"

    def __init__(self, views: PosedViews) -> None:
        camera = _cameras(views)
        radius = camera.position.norm(dim=-1).mean()
        # of cameras that look at the origin, by how far they look along -z
        straight = -camera.forward[:, 2]
        frontal = [
            int(own[straight[own].argmax()])
            for number in range(len(views.names))
            if len(own := torch.nonzero(views.objects == number).flatten())
        ]
        super().__init__(views, torch.tensor(frontal))
        zero = radius.new_zeros(())
        self.front = Camera(
            camera_to_world=orbit_pose(zero, zero, radius),
            intrinsics=camera.intrinsics[0],
            kind=camera.kind,
        )

    def describe(self) -> dict[str, object]:
        """What it shows."""
        return {
            "what": "the training picture of an object nearest to its front, on a card in z = 0",
            "pictures": self.count,
        }

    def make(self, numbers: Sequence[int], camera: Camera, side: int) -> ObjectViews:
        """The cards, foreshortened."""
        fine, _, _ = self._seen(numbers, camera, _RAYS * side)
        small = functional.avg_pool2d(fine.flatten(0, 1), _RAYS).unflatten(0, fine.shape[:2])
        _, depth, met = self._seen(numbers, camera, side)
        return ObjectViews(
            images=1 - small[:, :, :3],
            opacity=small[:, :, 3],
            depth=depth.where(met & (small[:, :, 3] > 0), torch.inf),
        )

    def _seen(
        self, numbers: Sequence[int], camera: Camera, side: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Layers, depth, and whether the plane is met, a ray for each pixel."""
        rays = image_rays(camera, side, side)  # n views side side 3
        slope = rays.directions[..., 2]
        distance = -rays.origins[..., 2] / slope.where(slope.abs() > 1e-9, 1e-9)
        met = distance > 0
        points = rays.origins + distance[..., None] * rays.directions
        front = self.front.to(points.device, points.dtype)
        uv, _ = front.project(points.flatten(0, -2))
        grid = (2 * uv - 1).unflatten(0, points.shape[:-1])  # n views side side 2
        layers = self.layers(numbers).to(points)
        views = camera.batch_shape[1]
        colors = functional.grid_sample(
            layers.repeat_interleave(views, 0), grid.flatten(0, 1), align_corners=False
        ).unflatten(0, (-1, views))
        cosine = (rays.directions * camera.forward[..., None, None, :]).sum(-1)
        return colors * met[:, :, None], distance * cosine, met


class TurningCard(_Cards):
    """Pictures that turn with the camera: what a generator without 3D gives.

    Each object is one picture, whatever the camera; its depth is that of a card through the origin
    which faces the camera.

    Args:
        views: a training set.
        seed: of the order in which its pictures are objects.
    """

    name = "turning-card"

    def __init__(self, views: PosedViews, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        super().__init__(views, torch.randperm(len(views), generator=random))

    def describe(self) -> dict[str, object]:
        """What it shows."""
        return {
            "what": "a training picture, the same for every camera, on a card through the origin "
            "that faces it",
            "pictures": self.count,
        }

    def make(self, numbers: Sequence[int], camera: Camera, side: int) -> ObjectViews:
        """The pictures."""
        views = camera.batch_shape[1]
        layers = self.layers(numbers)
        if layers.shape[-1] != side:
            layers = functional.interpolate(layers, size=(side, side), mode="area")
        layers = layers[:, None].expand(-1, views, -1, -1, -1)
        distance = -(camera.position * camera.forward).sum(-1)
        depth = distance[..., None, None].expand(-1, -1, side, side)
        return ObjectViews(
            images=1 - layers[:, :, :3],
            opacity=layers[:, :, 3],
            depth=depth.where(layers[:, :, 3] > 0, torch.inf),
        )


@runtime_checkable
class SolidViews(Protocol):
    """What some cameras see of a solid, exactly."""

    @property
    def rgb(self) -> Float[Tensor, "views 3 side side"]:
        """Over white, in [0, 1]."""
        ...

    @property
    def mask(self) -> Float[Tensor, "views side side"]:
        """Share of each pixel that the solid covers."""
        ...

    @property
    def depth(self) -> Float[Tensor, "views side side"]:
        """Along the optical axis, world units; infinite where nothing is."""
        ...


@runtime_checkable
class Solids(Protocol):
    """Objects whose views are known exactly, as `unflat.data.ProceduralObjects`."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def view(self, index: int, camera: Camera, side: int) -> SolidViews:
        """One of them from a batch of cameras."""
        ...


class TrueObjects:
    """Objects of a category as they are: the ceiling of every figure, and what others are held to.

    Args:
        solids: exact objects.
        name: for the report.
    """

    def __init__(self, solids: Solids, name: str = "true objects") -> None:
        self.solids, self.name = solids, name

    @property
    def count(self) -> int:
        """As many as there are."""
        return len(self.solids)

    def describe(self) -> dict[str, object]:
        """How many."""
        return {"what": "exact views of made-up objects", "objects": self.count}

    def make(self, numbers: Sequence[int], camera: Camera, side: int) -> ObjectViews:
        """Exact views."""
        made = [
            self.solids.view(number, camera[place], side) for place, number in enumerate(numbers)
        ]
        return ObjectViews(
            images=torch.stack([views.rgb for views in made]).float(),
            opacity=torch.stack([views.mask for views in made]).float(),
            depth=torch.stack([views.depth for views in made]).float(),
        )


def _cameras(views: PosedViews) -> Camera:
    if views.camera is None:
        raise UserError(f"{views.name}: has no cameras; objects are compared by those of a set.")
    return views.camera
