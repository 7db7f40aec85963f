"""Cameras and points at random for the tests of this room."""

import torch

from unflat.geometry.camera import Camera, CameraKind, rigid
from unflat.geometry.pose import rotation_from_vector


def random_camera(
    seed: int,
    batch: tuple[int, ...] = (),
    kind: CameraKind = "perspective",
    aspect: float | None = None,
) -> Camera:
    """A float64 camera anywhere, off-centre; with `aspect` its pixels are square."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(*batch, 6, generator=generator, dtype=torch.float64)
    spread = torch.rand(*batch, 4, generator=generator, dtype=torch.float64)
    low = torch.tensor([0.6, 0.6, 0.4, 0.4], dtype=torch.float64)
    span = torch.tensor([1.5, 1.5, 0.2, 0.2], dtype=torch.float64)
    intrinsics = low + span * spread
    if aspect is not None:
        intrinsics[..., 1] = aspect * intrinsics[..., 0]
    pose = rigid(rotation_from_vector(2.0 * draw[..., :3]), draw[..., 3:])
    return Camera(camera_to_world=pose, intrinsics=intrinsics, kind=kind)


def points_before(camera: Camera, count: int = 12, seed: int = 0) -> torch.Tensor:
    """World points that a camera sees, also some outside its picture."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*camera.batch_shape, count)
    uv = 1.4 * torch.rand(*shape, 2, generator=generator, dtype=torch.float64) - 0.2
    depth = 0.5 + 4.0 * torch.rand(*shape, generator=generator, dtype=torch.float64)
    return camera.unproject(uv, depth)


def assert_same_camera(actual: Camera, expected: Camera, tolerance: float = 1e-10) -> None:
    assert actual.kind == expected.kind
    for a, b in zip(
        (actual.camera_to_world, actual.intrinsics),
        (expected.camera_to_world, expected.intrinsics),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)
