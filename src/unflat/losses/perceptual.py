"""Distances of pictures by the features of a fixed network, as a term of training.

The network comes from outside: `FeatureDistance` around unflat's own
(`unflat.nn.feature_net.FeatureNet`), or `unflat.metrics.Lpips` where someone has its weights::

    distance = frozen(FeatureDistance(network))
    loss = perceptual_loss(distance, rendered, image).mean()
"""

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.metrics.perceptual import feature_distance
from unflat.nn.feature_net import FeatureNet

Network = TypeVar("Network", bound=nn.Module)


class FeatureDistance(nn.Module):
    """`unflat.metrics.feature_distance` of pairs of pictures by unflat's own network."""

    def __init__(self, network: FeatureNet):
        """The network, whose memory order is changed to the one that convolutions like."""
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] torch's stub lacks it

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        references: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, " batch"]:
        """Of each pair, in [0, 2]; pictures are in [0, 1], at least 16 pixels a side."""
        seen = (each.clamp(0, 1) for each in (images, references))
        ordered = (each.contiguous(memory_format=torch.channels_last) for each in seen)
        return feature_distance(*(self.network.maps(each) for each in ordered))


def frozen(network: Network) -> Network:
    """The network in evaluation mode; its weights ask for no gradients."""
    return network.eval().requires_grad_(False)


def perceptual_loss(
    distance: nn.Module,
    rgb: Float[Tensor, "batch 3 height width"],
    target: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, " batch"]:
    """The distance of rendered pictures to their targets.

    Colours that are not finite give NaN, to which a training loop has its answer; networks for
    measuring refuse them.

    Args:
        distance: called with both, one value for each pair.
        rgb: what is taught; colours outside [0, 1] count as the nearest inside.
        target: in [0, 1].
    """
    if not bool(torch.isfinite(rgb).all()):
        return rgb.flatten(1).sum(1) * torch.nan
    return distance(rgb, target)
