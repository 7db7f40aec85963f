"""Fields and rays that renderers are timed on: made up, the same in every process."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unflat.fields.triplane import FeatureDecoder, TriplaneField
from unflat.fields.voxels import VoxelField
from unflat.geometry.camera import Camera, rigid
from unflat.geometry.pose import rotation_from_vector
from unflat.geometry.rays import image_rays
from unflat.rendering.backends import Rays
from unflat.rendering.sampling import even_edges, to_distance

# EG3D's faces (arXiv 2112.07945): a camera 2.7 from the middle that looks at 2.25 to 3.3.
DISTANCE, NEAR, FAR, FOCAL = 2.7, 2.25, 3.3, 4.2647
HALF = 0.85  # of the box's side: every sample lies in it
TEXELS = 64  # along a side of a plane
HIDDEN = 64  # width of the network
VOXELS = 64


class Case(NamedTuple):
    """What is rendered."""

    field: TriplaneField | VoxelField
    rays: Rays


def rays(side: int, samples: int) -> Rays:
    """Of a square picture from an oblique side."""
    rotation = rotation_from_vector(torch.tensor([0.3, 0.5, 0.0]))
    pose = rigid(rotation, -DISTANCE * rotation[:, 2])
    intrinsics = torch.tensor([[FOCAL, FOCAL, 0.5, 0.5]])
    lines = image_rays(Camera(camera_to_world=pose[None], intrinsics=intrinsics), side, side)
    edges = to_distance(even_edges(samples), NEAR, FAR, "distance")
    edges = edges.expand(1, side * side, -1).contiguous()
    return Rays(lines.origins.flatten(1, 2), lines.directions.flatten(1, 2), edges)


def box() -> Tensor:
    """Lowest and highest corner."""
    return torch.tensor([[-HALF] * 3, [HALF] * 3])


def triplane(side: int, samples: int, channels: int) -> Case:
    """Planes of noise with an untrained decoder: rays lose some three tenths of their light."""
    torch.manual_seed(0)
    planes = nn.Parameter(torch.randn(1, 3, channels, TEXELS, TEXELS))
    field = TriplaneField(planes, FeatureDecoder(channels, HIDDEN), box())
    return Case(field, rays(side, samples))


def voxels(side: int, samples: int) -> Case:
    """A box of noise, as dense as the tri-planes are."""
    torch.manual_seed(0)
    density = nn.Parameter(torch.rand(1, VOXELS, VOXELS, VOXELS))
    features = nn.Parameter(torch.rand(1, 3, VOXELS, VOXELS, VOXELS))
    return Case(VoxelField(density, features, box()), rays(side, samples))


def triplane_work(points: int, channels: int, colors: int = 3) -> dict[str, float]:
    """Multiplications and additions of a field asked at points: forward, and with gradients.

    A lookup weighs four texels of each plane; the network is channels - HIDDEN - colors + 1. The
    way back multiplies by each matrix twice (for what came in, and for the weights) and puts
    every lookup back; nothing is computed twice.
    """
    network = 2 * HIDDEN * (channels + colors + 1)
    lookups = 2 * 4 * 3 * channels
    return {
        "forward": points * (network + lookups),
        "both": points * (3 * network + 2 * lookups),
    }


def triplane_bytes(rays: int, samples: int, channels: int, colors: int = 3) -> dict[str, float]:
    """Bytes that must be read and written: planes, edges, colours and shares, once each way."""
    planes = 3 * channels * TEXELS**2
    lines = rays * (6 + samples + 1)
    results = rays * (colors + samples)
    return {
        "forward": 4 * (planes + lines + results),
        "both": 4 * (3 * planes + 2 * lines + 2 * results),
    }


def side_view(focal_true: float, angle_deg: float = 10.0) -> Camera:
    """A camera that is turned about a pivot two units away, beside the canonical one."""
    from unflat.geometry.trajectory import orbit

    half = focal_true / 2
    pose = orbit(4, math.radians(angle_deg), 2.0)[1:2]
    return Camera(camera_to_world=pose, intrinsics=torch.tensor([[half, half, 0.5, 0.5]]))
