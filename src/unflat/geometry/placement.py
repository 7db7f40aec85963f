"""Where an object goes in a reconstructed scene, as a person says it who looks at the picture.

place = Placement(x=0.4, y=-0.5, nearness=0.7, size=0.3)
object_to_world = place.matrix(lowest, highest, frame)
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.geometry.projective import Frame

OBJECT_TO_SCENE = (1.0, -1.0, -1.0)
"""Diagonal of the half-turn from the object world (y up, front +z) to the scene world."""
_LARGEST = 2.0


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the middle of an object's box goes in the canonical picture, its size, its turn.

    Raises:
        UserError: a number outside its range.
    """

    x: float = 0.0
    """Across the picture: -1 at its left border, 1 at its right one."""
    y: float = 0.0
    """Up the picture: -1 at its lower border, 1 at its upper one."""
    nearness: float = 0.5
    """Normalised disparity: 0 is the farthest that the scene holds, 1 the nearest."""
    size: float = 0.3
    """Longest side of the object, as a share of the visible height at its depth."""
    turn: float = 0.0
    """About the object's upright axis, radians, counter-clockwise seen from above."""
    stands: bool = False
    """The place is that of the middle of its underside, not of its middle."""

    def __post_init__(self) -> None:
        for name, low, high, meaning in (
            ("x", -1, 1, "from -1, the picture's left border, to 1, its right one"),
            ("y", -1, 1, "from -1, the picture's lower border, to 1, its upper one"),
            ("nearness", 0, 1, "from 0, the scene's farthest depth, to 1, its nearest"),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(
                    f"placement {name} {value:g}: is outside the scene; must be {meaning}."
                )
        if not 0.001 <= self.size <= _LARGEST:
            raise UserError(
                f"placement size {self.size:g}: must be from 0.001 to {_LARGEST:g} of the visible "
                "height."
            )
        if not math.isfinite(self.turn):
            raise UserError(f"placement turn {self.turn}: is no angle; give a number.")

    def depth(self, frame: Frame) -> float:
        """True depth of the object's middle, or of its underside's, world units."""
        disparity = frame.d_far + (frame.d_near - frame.d_far) * self.nearness
        return frame.a / (disparity - frame.b)

    def matrix(
        self,
        lowest: Float[Tensor, " 3"],
        highest: Float[Tensor, " 3"],
        frame: Frame,
        nearest: float = 0.0,
    ) -> Float[Tensor, "4 4"]:
        """Object world to scene world: rotation, one scale, translation.

        Args:
            lowest: corner of the object's box, in the object world (y up, front +z).
            highest: the opposite corner.
            frame: of the scene.
            nearest: depth that no part of the object's box may come before, world units.

        Raises:
            UserError: the object would reach before that depth, where no camera sees it.
        """
        depth = self.depth(frame)
        unit = self.size * 2 / frame.focal_true / float((highest - lowest).max())  # per depth
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        upright = torch.tensor([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
        rotation = torch.tensor(OBJECT_TO_SCENE)[:, None] * upright
        half = (highest - lowest) / 2
        self._check_near(float(unit * (rotation[2].abs() * half).sum()), depth, frame, nearest)
        middle = torch.tensor([self.x / frame.focal_true, -self.y / frame.focal_true, 1.0]) * depth
        matrix = torch.eye(4)
        matrix[:3, :3] = unit * depth * rotation
        anchor = (lowest + highest) / 2
        if self.stands:
            anchor = torch.stack([anchor[0], lowest[1], anchor[2]])
        matrix[:3, 3] = middle - matrix[:3, :3] @ anchor
        return matrix

    def _check_near(self, reach: float, depth: float, frame: Frame, nearest: float) -> None:
        """Refuse an object that reaches ``reach`` (of its depth) towards the camera too far."""
        if depth * (1 - reach) >= nearest:
            return
        advice = "give a smaller size"
        if reach < 1:
            disparity = frame.a * (1 - reach) / nearest + frame.b
            most = (disparity - frame.d_far) / (frame.d_near - frame.d_far)
            if most >= 0.01:
                advice = f"give a nearness of at most {math.floor(100 * most) / 100:g}"
                advice += " or a smaller size"
        raise UserError(
            f"placement nearness {self.nearness:g}: an object of size {self.size:g} would reach "
            f"into the camera there; {advice}."
        )
