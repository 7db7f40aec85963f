"""A camera: where it is, how it looks, and how points fall on its picture.

Axes are OpenCV's: x right, y down, z forward. Intrinsics are divided by the width and height of the
picture, so that the same camera serves every resolution; the picture spans [0, 1] in u (right) and
v (down), and the centre of pixel (row i, column j) is ((j + 0.5) / width, (i + 0.5) / height).

    camera = Camera.from_fov(math.radians(45))
    uv, depth = camera.project(torch.tensor([[0.0, 0.0, 2.0]]))   # the middle of the picture, 2.0
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

CameraKind = Literal["perspective", "orthographic"]
Index = int | slice | Tensor | tuple[int | slice, ...]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Pose and intrinsics of one view, or of a batch of views of the same kind."""

    camera_to_world: Float[Tensor, "*batch 4 4"]
    """Rigid motion; its columns are right, down, forward and position, in world units."""
    intrinsics: Float[Tensor, "*batch 4"]
    """fx, fy, cx, cy; fx and cx divided by the width, fy and cy by the height.

    Perspective: u = fx x / z + cx. Orthographic: u = fx x + cx, so that fx is per world unit.
    """
    kind: CameraKind = "perspective"
    """Whether rays meet in the camera's position or run parallel to its forward axis."""

    @classmethod
    def from_fov(
        cls,
        fov: float,
        camera_to_world: Float[Tensor, "*batch 4 4"] | None = None,
        aspect: float = 1.0,
    ) -> "Camera":
        """A perspective camera with its principal point in the middle and square pixels.

        Args:
            fov: radians across the width of the picture, in (0, pi).
            camera_to_world: the identity if not given.
            aspect: width over height of the picture.

        Raises:
            ValueError: the field of view is not inside (0, pi).
        """
        if not 0.0 < fov < math.pi:
            raise ValueError(f"fov is {fov} rad; it must be inside (0, pi)")
        if camera_to_world is None:
            camera_to_world = torch.eye(4)
        focal = 0.5 / math.tan(0.5 * fov)
        intrinsics = camera_to_world.new_tensor([focal, focal * aspect, 0.5, 0.5])
        return cls(
            camera_to_world=camera_to_world,
            intrinsics=intrinsics.expand(*camera_to_world.shape[:-2], 4),
        )

    @property
    def batch_shape(self) -> torch.Size:
        """The leading axes; empty for a single view."""
        return self.intrinsics.shape[:-1]

    @property
    def rotation(self) -> Float[Tensor, "*batch 3 3"]:
        """Turns directions of the camera into directions of the world."""
        return self.camera_to_world[..., :3, :3]

    @property
    def position(self) -> Float[Tensor, "*batch 3"]:
        """The camera's centre in the world (orthographic: a point of its picture plane)."""
        return self.camera_to_world[..., :3, 3]

    @property
    def forward(self) -> Float[Tensor, "*batch 3"]:
        """Unit direction of the optical axis in the world."""
        return self.camera_to_world[..., :3, 2]

    @property
    def world_to_camera(self) -> Float[Tensor, "*batch 4 4"]:
        """The inverse rigid motion."""
        return invert_rigid(self.camera_to_world)

    @property
    def fov(self) -> Float[Tensor, "*batch"]:
        """Radians across the width of a centred perspective picture."""
        return 2.0 * torch.atan(0.5 / self.intrinsics[..., 0])

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Camera":
        """The same camera on another device or in another precision."""
        return Camera(
            camera_to_world=self.camera_to_world.to(device=device, dtype=dtype),
            intrinsics=self.intrinsics.to(device=device, dtype=dtype),
            kind=self.kind,
        )

    def within(
        self, corner: Float[Tensor, "*#batch 2"], size: Float[Tensor, "*#batch 2"]
    ) -> "Camera":
        """The camera of a part of the picture, which spans [0, 1] again.

        Args:
            corner: top left of the part, (u, v) of the whole picture.
            size: its width and height, as shares of the picture's.
        """
        intrinsics = torch.cat(
            [self.intrinsics[..., :2] / size, (self.intrinsics[..., 2:] - corner) / size], dim=-1
        )
        return Camera(camera_to_world=self.camera_to_world, intrinsics=intrinsics, kind=self.kind)

    def __getitem__(self, index: Index) -> "Camera":
        """Some of the views of a batch; the index meets the leading axes only."""
        return Camera(
            camera_to_world=self.camera_to_world[index],
            intrinsics=self.intrinsics[index],
            kind=self.kind,
        )

    def to_camera(self, points: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch n 3"]:
        """World points in the camera's own axes."""
        return (points - self.position[..., None, :]) @ self.rotation

    def project(
        self, points: Float[Tensor, "*batch n 3"]
    ) -> tuple[Float[Tensor, "*batch n 2"], Float[Tensor, "*batch n"]]:
        """Picture coordinates (u, v), inside [0, 1] where the picture is, and depths.

        A perspective camera sees only points of positive depth: for the others (u, v) is where the
        line through the camera's centre would meet the picture, and infinite at depth 0.

        Args:
            points: in world units.
        """
        local = self.to_camera(points)
        depth = local[..., 2]
        across = local[..., :2]
        if self.kind == "perspective":
            across = across / depth[..., None]
        focal, center = self.intrinsics[..., None, :2], self.intrinsics[..., None, 2:]
        return across * focal + center, depth

    def unproject(
        self, uv: Float[Tensor, "*batch n 2"], depth: Float[Tensor, "*batch n"]
    ) -> Float[Tensor, "*batch n 3"]:
        """World points that fall on (u, v) at a depth along the optical axis."""
        focal, center = self.intrinsics[..., None, :2], self.intrinsics[..., None, 2:]
        across = (uv - center) / focal
        if self.kind == "perspective":
            across = across * depth[..., None]
        local = torch.cat([across, depth[..., None]], dim=-1)
        return local @ self.rotation.mT + self.position[..., None, :]


def mirrored_camera(camera: Camera) -> Camera:
    """The camera whose picture of the world mirrored in x is the mirrored picture.

    C becomes D C D with D = diag(-1, 1, 1, 1): the mirror of the world on the left, that of the
    picture's columns on the right; the principal point cx becomes 1 - cx. What is seen at (u, v)
    of (x, y, z) is then seen at (1 - u, v) of (-x, y, z).
    """
    mirror = camera.camera_to_world.new_tensor([-1.0, 1.0, 1.0, 1.0])
    fx, fy, cx, cy = camera.intrinsics.unbind(dim=-1)
    return Camera(
        camera_to_world=mirror[:, None] * camera.camera_to_world * mirror,
        intrinsics=torch.stack([fx, fy, 1.0 - cx, cy], dim=-1),
        kind=camera.kind,
    )


def invert_rigid(motion: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """The inverse of a rotation followed by a translation: (R, t) becomes (R', -R' t)."""
    rotation = motion[..., :3, :3].mT
    return rigid(rotation, -(rotation @ motion[..., :3, 3:])[..., 0])


def rigid(
    rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """The 4x4 matrix that rotates and then translates column vectors."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    last = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, last], dim=-2)


def length(vector: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Euclidean lengths, with gradient 0 at length 0."""
    # torch's stubs leave this function untyped.
    return torch.linalg.vector_norm(vector, dim=-1)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
