"""Random changes of training pictures, as pure functions of the numbers that were drawn for them.

Batch sources mirror and cut whole pixels; what is here resamples and recolors tensors, for systems
that need harder changes. Draws are uniform in [0, 1], a row for each sample.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def cut_windows(
    images: Float[Tensor, "batch channels height width"],
    draws: Float[Tensor, "batch 4"],
    least_share: float,
    side: int,
) -> Float[Tensor, "batch channels side side"]:
    """One random square window of every picture, mirrored in half of the cases.

    Args:
        images: with whatever has to be cut alike as further channels.
        draws: size of the window, its place (2), mirror.
        least_share: smallest side of a window, as a share of the picture's.
        side: of the result in pixels, bilinear.
    """
    share = least_share + (1 - least_share) * draws[:, 0]
    shift = (2 * draws[:, 1:3] - 1) * (1 - share)[:, None]
    mirror = torch.where(draws[:, 3] < 0.5, -1.0, 1.0)
    zeros = torch.zeros_like(share)
    rows = torch.stack(
        [
            torch.stack([share * mirror, zeros, shift[:, 0]], dim=1),
            torch.stack([zeros, share, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    size = [len(share), images.shape[1], side, side]
    grid = functional.affine_grid(rows, size, align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False, padding_mode="border")


def recolor(
    images: Float[Tensor, "batch 3 side side"], draws: Float[Tensor, "batch 3"], most: float
) -> Float[Tensor, "batch 3 side side"]:
    """Brightness, contrast and saturation changed by up to a share; still within [0, 1]."""
    bright, contrast, saturation = (1 + most * (2 * draws - 1)).T[..., None, None, None]
    images = images * bright
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * contrast
    gray = images.mean(dim=1, keepdim=True)
    return (gray + (images - gray) * saturation).clamp(0, 1)


def turn_hue(
    images: Float[Tensor, "batch 3 side side"], draws: Float[Tensor, " batch"], most: float
) -> Float[Tensor, "batch 3 side side"]:
    """Colors turned about the gray axis by up to a share of the full circle; within [0, 1].

    A rotation of RGB about (1, 1, 1), so that a gray stays the gray it is (up to clipping).
    """
    angle = 2 * torch.pi * most * (2 * draws - 1)
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    eye = torch.eye(3, device=images.device)
    third = torch.full((3, 3), 1 / 3, device=images.device)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    matrix = cosine * eye + (1 - cosine) * third + sine * cross.to(images)  # Rodrigues
    return torch.einsum("bij,bjhw->bihw", matrix, images).clamp(0, 1)


def stretch(
    disparity: Float[Tensor, "batch 1 side side"],
) -> Float[Tensor, "batch 1 side side"]:
    """Every map brought to [0, 1] by its own least and greatest value; flat ones become 0."""
    low = disparity.amin(dim=(2, 3), keepdim=True)
    span = disparity.amax(dim=(2, 3), keepdim=True) - low
    return (disparity - low) / span.clamp_min(1e-6)


def blur(
    images: Float[Tensor, "batch 3 side side"], draws: Float[Tensor, " batch"], share: float
) -> Float[Tensor, "batch 3 side side"]:
    """A 3 x 3 binomial blur over a share of the pictures, twice over half of these."""
    kernel = torch.tensor([0.25, 0.5, 0.25], device=images.device)
    kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    for bound in (share, share / 2):
        soft = functional.conv2d(
            functional.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=3
        )
        images = torch.where((draws < bound)[:, None, None, None], soft, images)
    return images
