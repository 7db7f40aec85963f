"""Fields and rays that renderers are timed on: made up, the same in every process."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unflat.fields.distance import DistanceDecoder, DistanceTriplaneField, LaplaceDensity
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
OBJECTS, OBJECT_SIDE, OBJECT_SAMPLES = 4, 32, 24  # of a training step with a critic
COLORS = 10  # of an object's palette
BALL, STEEP = 0.25, 200.0  # radius, and how quickly density begins there


class TriplaneCase(NamedTuple):
    """What is rendered."""

    field: TriplaneField
    rays: Rays


def camera() -> Camera:
    """From an oblique side, batch of one."""
    rotation = rotation_from_vector(torch.tensor([0.3, 0.5, 0.0]))
    pose = rigid(rotation, -DISTANCE * rotation[:, 2])
    intrinsics = torch.tensor([[FOCAL, FOCAL, 0.5, 0.5]])
    return Camera(camera_to_world=pose[None], intrinsics=intrinsics)


def rays(side: int, samples: int) -> Rays:
    """Of a square picture."""
    lines = image_rays(camera(), side, side)
    edges = to_distance(even_edges(samples), NEAR, FAR, "distance")
    edges = edges.expand(1, side * side, -1).contiguous()
    return Rays(lines.origins.flatten(1, 2), lines.directions.flatten(1, 2), edges)


def box() -> Tensor:
    """Lowest and highest corner."""
    return torch.tensor([[-HALF] * 3, [HALF] * 3])


def triplane(side: int, samples: int, channels: int) -> TriplaneCase:
    """Planes of noise with an untrained decoder: rays lose some three tenths of their light."""
    torch.manual_seed(0)
    planes = nn.Parameter(torch.randn(1, 3, channels, TEXELS, TEXELS))
    field = TriplaneField(planes, FeatureDecoder(channels, HIDDEN), box())
    return TriplaneCase(field, rays(side, samples))


@torch.no_grad()
def ball(side: int, samples: int, channels: int = 32) -> TriplaneCase:
    """A colored ball in empty space, written into planes and network: an object as made by a GAN.

    The first channels of the three planes add up to the squared distance from the middle, the
    first number of the hidden layer is softplus(STEEP (BALL^2 - distance^2)), and density grows
    with it; the other numbers are noise and make the color.
    """
    field, lines = triplane(side, samples, channels)
    places = (torch.arange(TEXELS) + 0.5) / TEXELS * 2 - 1
    squares = (HALF * places).square()
    field.planes[:, :, 0] = (squares + squares[:, None]) / 2
    decoder = field.decoder
    assert isinstance(decoder, FeatureDecoder)
    decoder.into.weight[:, 0] = 0
    decoder.into.weight[0] = 0
    decoder.into.weight[0, 0] = -STEEP
    decoder.into.bias[0] = STEEP * BALL**2
    decoder.out.weight[0] = 0
    decoder.out.weight[1:, 0] = 0
    decoder.out.weight[0, 0] = 5
    decoder.out.bias[0] = -8  # density 0.0001 outside
    return TriplaneCase(field, lines)


def voxels(side: int, samples: int) -> tuple[VoxelField, Rays]:
    """A box of noise, as dense as the tri-planes are."""
    torch.manual_seed(0)
    density = nn.Parameter(torch.rand(1, VOXELS, VOXELS, VOXELS))
    features = nn.Parameter(torch.rand(1, 3, VOXELS, VOXELS, VOXELS))
    return VoxelField(density, features, box()), rays(side, samples)


@torch.no_grad()
def distances(hidden: int) -> tuple[DistanceTriplaneField, Rays]:
    """Objects made of noise, half of each box inside, as a batch of a GAN's generator is seen."""
    torch.manual_seed(0)
    planes = nn.Parameter(torch.randn(OBJECTS, 3, 16, TEXELS, TEXELS))
    decoder, density = DistanceDecoder(16, hidden, COLORS), LaplaceDensity(alpha=0.1, beta=0.3)
    field = DistanceTriplaneField(planes, decoder, density, box())
    places = box()[0] + torch.rand(OBJECTS, 1000, 3) * (box()[1] - box()[0])
    decoder.out.bias[0] = -field.distance(places).median()
    lines = rays(OBJECT_SIDE, OBJECT_SAMPLES)
    many = (part.expand(OBJECTS, -1, -1).contiguous() for part in lines[:3])
    return field, Rays(*many)


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
