"""How near a camera is to the right one: angles in degrees, positions, focal lengths.

>>> import math
>>> from unflat.geometry import rotation_about
>>> import torch
>>> turned = rotation_about(torch.tensor([0.0, 1.0, 0.0]), math.radians(20.0))
>>> rotation_error(turned, torch.eye(3))
tensor(20.0000)
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry import quaternion_from_rotation, rotation_about

_RIGID_TOLERANCE = 1e-3  # of products of columns: rounding of float32 and of six digits in a file


def rotation_error(
    predicted: Float[Tensor, "*batch 3 3"], true: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch"]:
    """Angle of the turn between two rotations in degrees, [0, 180]; lower is better.

    The geodesic distance on SO(3), arccos((trace(P' T) - 1) / 2), without any alignment of the two
    worlds. Taken from the quaternion of P' T as 2 atan2(|vector|, |scalar|) in float64: the arc
    cosine loses half of the digits near 0 and near 180. Uniformly random rotations are 126.5
    degrees apart on average.

    Args:
        predicted: both camera-to-world or both world-to-camera.
        true: see `predicted`.

    Raises:
        ValueError: a matrix is not a rotation.
    """
    _require_rotations(predicted=predicted, true=true)
    turn = predicted.double().mT @ true.double()
    quaternion = quaternion_from_rotation(turn)
    vector = torch.linalg.vector_norm(quaternion[..., 1:], dim=-1)
    angle = 2.0 * torch.atan2(vector, quaternion[..., 0].abs())
    return torch.rad2deg(angle).to(true.dtype)


def symmetric_rotation_error(
    predicted: Float[Tensor, "*batch 3 3"],
    true: Float[Tensor, "*batch 3 3"],
    symmetries: Float[Tensor, "k 3 3"],
) -> Float[Tensor, "*batch"]:
    """Least `rotation_error`, degrees, over cameras that see a symmetric object alike.

    Lower is better.

    An object that S leaves unchanged looks from S T as it looks from T, so that the error is the
    least of those between the prediction and S T over all given S.

    Args:
        predicted: camera-to-world, in the world of the object.
        true: camera-to-world, in the world of the object.
        symmetries: rotations of the world that leave the object as it is, the identity among them
            (`turns_about_up` makes those of a table); they are applied on the left of `true`.

    Raises:
        ValueError: a matrix is not a rotation, or the identity is not among the symmetries.
    """
    _require_rotations(symmetries=symmetries)
    distance = (symmetries - torch.eye(3, dtype=symmetries.dtype, device=symmetries.device)).abs()
    if not bool((distance.amax(dim=(1, 2)) < _RIGID_TOLERANCE).any()):
        raise ValueError(f"symmetries {tuple(symmetries.shape)}: the identity is not among them")
    alike = [symmetry.to(true) @ true for symmetry in symmetries]
    return torch.stack([rotation_error(predicted, other) for other in alike]).amin(dim=0)


def turns_about_up(order: int) -> Float[Tensor, "order 3 3"]:
    """The turns of an object that looks alike `order` times on its way about the world's up (y).

    Args:
        order: 1 for no symmetry, 2 for a plain table, 4 for a square one.
    """
    if order < 1:
        raise ValueError(f"order is {order}; it must be at least 1")
    angles = torch.arange(order, dtype=torch.float64) * (2.0 * math.pi / order)
    return rotation_about(angles.new_tensor([0.0, 1.0, 0.0]).expand(order, 3), angles).float()


def accuracy_within(errors: Float[Tensor, " items"], degrees: float) -> Float[Tensor, ""]:
    """Share of rotation errors below an angle, [0, 1]; higher is better.

    Acc@30 is `accuracy_within(errors, 30.0)` (Acc pi/6 of Tulsiani and Malik, arXiv 1411.6067).

    Args:
        errors: degrees; infinite where no camera was found, which counts as a miss.
        degrees: the angle itself is a miss.

    Raises:
        ValueError: no errors, or some are NaN.
    """
    if errors.numel() == 0 or bool(errors.isnan().any()):
        raise ValueError(f"errors {tuple(errors.shape)}: must hold some numbers and no NaN")
    return (errors < degrees).to(errors.dtype).mean()


def translation_error(
    predicted: Float[Tensor, "*batch 3"], true: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch"]:
    """Distance between two camera positions in world units; lower is better.

    Positions, not translations of world-to-camera matrices, which move with the rotation. Nothing
    is aligned: where the scale of the world is unknown this figure measures that, too.

    Args:
        predicted: world units.
        true: world units.

    Raises:
        ValueError: a position is not finite.
    """
    _require_finite(predicted=predicted, true=true)
    return torch.linalg.vector_norm(predicted - true, dim=-1)


def focal_error(
    predicted: Float[Tensor, "*batch"], true: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """|ln(predicted / true)| of focal lengths; lower is better, 0.1 is about 10 %.

    The logarithm makes twice and half the focal length equally wrong.

    Args:
        predicted: of any unit, positive.
        true: of the same unit.

    Raises:
        ValueError: a focal length is not positive and finite.
    """
    _require_finite(predicted=predicted, true=true)
    for name, values in {"predicted": predicted, "true": true}.items():
        if bool((values <= 0).any()):
            raise ValueError(f"{name}: focal lengths must be positive, least is {values.min()}")
    return (predicted.log() - true.log()).abs()


def _require_finite(**named: Tensor) -> None:
    for name, values in named.items():
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name} {tuple(values.shape)}: holds numbers that are not finite")


def _require_rotations(**named: Tensor) -> None:
    _require_finite(**named)
    for name, values in named.items():
        unit = torch.eye(3, dtype=values.dtype, device=values.device)
        is_unitary = bool(((values.mT @ values - unit).abs() < _RIGID_TOLERANCE).all())
        if not is_unitary or bool((torch.linalg.det(values) < 0).any()):
            raise ValueError(f"{name} {tuple(values.shape)}: holds a matrix that is no rotation")
