"""Several fields in one world: objects placed beside, in and before each other.

Densities add up and colours mix by density, sigma = sum sigma_i and c = sum sigma_i c_i / sigma,
so that occlusion is right by construction; shadows and reflected light are not.

    chair_at = similarity(scale=0.4, translation=(0.0, 1.0, 3.0))
    field = ComposedField([Placed(room), Placed(chair, chair_at)])
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.fields.field import Field, FieldOutput, Warped

_TOLERANCE = 1e-4  # of a placement's shape, relative: float32 products of a few rotations


class Placed(NamedTuple):
    """A field and where it stands."""

    field: Field
    """In its own space."""
    object_to_world: Float[Tensor, "4 4"] | Float[Tensor, "batch 4 4"] | None = None
    """Rotation, one scale for all axes, translation (see :func:`similarity`); None: as it is."""


class ComposedField(nn.Module):
    """The sum of placed fields.

    An object made k times larger has k times thinner matter, so that it stays as opaque as it was.
    Where nothing is, colours are the first part's: an opaque last interval asks for them, so put
    what has a background first.
    """

    def __init__(self, parts: Sequence[Placed]):
        """Fields with the same number of feature channels, for the same batch of scenes.

        Raises:
            ValueError: no parts; a placement is no similarity; or a field measures lengths in a
                space of its own, where its density cannot be added to others'.
        """
        super().__init__()
        if not parts:
            raise ValueError("a composition needs at least one part")
        self.fields: list[Field] = []
        for index, (field, placement) in enumerate(parts):
            if isinstance(field, Warped):
                raise ValueError(
                    f"part {index} ({type(field).__name__}) has a warp: its density is per length"
                    " of another space and cannot be added; turn it into a field of world space"
                )
            if placement is not None:
                check_similarity(placement, index)
            if isinstance(field, nn.Module):
                self.add_module(f"part{index}", field)
            self.register_buffer(f"placement{index}", placement)
            self.fields.append(field)

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Summed density, and colours weighed by density."""
        answers = [
            _ask(field, getattr(self, f"placement{index}"), points, directions)
            for index, field in enumerate(self.fields)
        ]
        density = torch.stack([answer.density for answer in answers]).sum(dim=0)
        filled = density > 0
        divisor = torch.where(filled, density, 1.0)
        mixed = torch.stack(
            [(answer.density / divisor)[..., None] * answer.features for answer in answers]
        ).sum(dim=0)
        return FieldOutput(density, torch.where(filled[..., None], mixed, answers[0].features))


def similarity(
    scale: float = 1.0,
    rotation: Float[Tensor, "3 3"] | None = None,
    translation: Sequence[float] | Float[Tensor, " 3"] = (0.0, 0.0, 0.0),
) -> Float[Tensor, "4 4"]:
    """The placement x -> scale rotation x + translation.

    Args:
        scale: world units per unit of the object.
        rotation: of the object in the world; none if not given.
        translation: where the object's origin comes to lie, world units.
    """
    turned = torch.eye(3) if rotation is None else rotation
    matrix = torch.eye(4, dtype=turned.dtype, device=turned.device)
    matrix[:3, :3] = scale * turned
    matrix[:3, 3] = torch.as_tensor(translation, dtype=turned.dtype, device=turned.device)
    return matrix


def _ask(
    field: Field, placement: Tensor | None, points: Tensor, directions: Tensor | None
) -> FieldOutput:
    """A part's answer at world points, its density per world unit."""
    if placement is None:
        return field(points, directions)
    batch, shape = points.shape[0], points.shape[1:-1]
    placement = placement.to(points).expand(batch, 4, 4)
    linear = placement[:, :3, :3]  # scale times rotation
    scale = linear[:, :, 0].norm(dim=-1)[:, None, None]
    local = (points.flatten(1, -2) - placement[:, None, :3, 3]) @ linear / scale.square()
    if directions is not None:
        directions = (directions.flatten(1, -2) @ linear / scale).unflatten(1, shape)
    answer = field(local.unflatten(1, shape), directions)
    thinner = scale[:, 0, 0].reshape(batch, *(1 for _ in shape))
    return FieldOutput(answer.density / thinner, answer.features)


def check_similarity(placement: Tensor, index: int) -> None:
    """Refuses what shears, mirrors, stretches or projects."""
    linear = placement[..., :3, :3].detach().double()
    square = linear.mT @ linear
    size = square.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    even = ((square - size * torch.eye(3).to(square)).abs() <= _TOLERANCE * size).all()
    last = placement.new_tensor([0.0, 0.0, 0.0, 1.0])
    if not (even and (torch.linalg.det(linear) > 0).all() and (placement[..., 3, :] == last).all()):
        raise ValueError(
            f"the placement of part {index} is not rotation, one positive scale and translation:"
            f" {placement.tolist()}"
        )
