"""Path length regularization: a step in the code changes the picture by about the same everywhere.

StyleGAN2 (arXiv 1912.04958, section 3.2 and appendix B). nerf-from-image (arXiv 2211.11674) takes
what the code makes before anything is rendered in the picture's place: planes, and the palette.

    noise = torch.randn_like(planes), torch.randn_like(palette)
    lengths = path_lengths(codes, planes, noise[0], palette, noise[1])
    loss = 2 * path_length(lengths).mean()          # path_length = PathLength()
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.training.distribution import mean_over_processes


def path_lengths(
    codes: Float[Tensor, "batch codes style"],
    picture: Float[Tensor, "batch *maps height width"],
    noise: Float[Tensor, "batch *maps height width"],
    palette: Float[Tensor, " batch *colors"] | None = None,
    palette_noise: Float[Tensor, " batch *colors"] | None = None,
) -> Float[Tensor, " batch"]:
    """How far a random direction of what was made moves each code: |J' noise|, differentiable.

    The root of the mean over the codes of the squared length of d(sum picture noise / sqrt(height
    width) + sum palette palette_noise) / d code.

    Args:
        codes: one for each layer, requiring gradients.
        picture: made of them: an image, or planes.
        noise: standard normal.
        palette: also made of them; StyleGAN2 has none.
        palette_noise: standard normal.

    Raises:
        ValueError: only one of the palette and its noise is given.
    """
    if (palette is None) != (palette_noise is None):
        raise ValueError("palette and palette_noise are given both or not at all")
    height, width = picture.shape[-2:]
    seen = (picture * noise).sum() / (height * width) ** 0.5
    if palette is not None and palette_noise is not None:
        seen = seen + (palette * palette_noise).sum()
    (gradient,) = torch.autograd.grad(seen, codes, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


class PathLength(nn.Module):
    """Squared distance of path lengths from their own running mean."""

    average: Tensor
    seen: Tensor

    def __init__(self, share: float = 0.01):
        """A running mean that begins at 0.

        Args:
            share: of each step's mean in it.
        """
        super().__init__()
        self.share = share
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2))  # since the last step: a sum, and how many

    def forward(self, lengths: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """(length - running mean)^2 of each sample; these lengths are in the mean already.

        No gradient goes through the mean, as in StyleGAN2's paper; its code lets a hundredth of one
        through.
        """
        values = lengths.detach()
        with torch.no_grad():
            self.seen += torch.stack([values.sum(), values.new_tensor(len(values))])
        return (lengths - self.average.lerp(values.mean(), self.share)).square()

    @torch.no_grad()
    def after_step(self) -> None:
        """Takes the step's lengths into the mean, alike on every process.

        To be called by ``Recipe.after_step``; after a step without lengths nothing is changed.
        """
        total, count = mean_over_processes(self.seen)
        if count:
            self.average.lerp_(total / count, self.share)
        self.seen.zero_()
