"""From a file of our own small teacher to disparities of pictures."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.errors import UserError
from unflat.hub.registry import find
from unflat.nn.depth_net import DepthNet
from unflat.systems.depth.recipe import SYSTEM, Config, build
from unflat.training.model_file import load_weights


class Teacher:
    """The network as a `DepthEstimator`."""

    def __init__(self, network: DepthNet, resolution: int, device: str = "cpu"):
        """A network in evaluation mode, and the side of the pictures that it learned from."""
        self.network = network.eval().to(device)
        self.resolution, self.device = resolution, device

    @torch.no_grad()
    def estimate(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch 1 side side"]:
        """Disparity of square pictures, 1 nearest, 0 farthest, about [0, 1].

        Seen at the resolution it learned from, once as it is and once mirrored; the mean of both
        is enlarged to the pictures' side.
        """
        side = images.shape[-1]
        small = functional.interpolate(images.to(self.device), (self.resolution,) * 2, mode="area")
        as_is, mirrored = (self.network(view).disparity for view in (small, small.flip(-1)))
        mean = 0.5 * (as_is + mirrored.flip(-1))
        return functional.interpolate(mean, (side, side), mode="bilinear").to(images)


def load(model: str | Path, device: str = "cpu", offline: bool = False) -> Teacher:
    """The teacher of a model file.

    Raises:
        UserError: no such file, or a model of another kind.
    """
    path = find(model, offline=offline)
    state, header = load_weights(path)
    if header.get("system") != SYSTEM:
        raise UserError(
            f"{path}: is a model of {header.get('system')}, not of depth; "
            "give a file that `unflat train depth` wrote."
        )
    try:
        config = Config.from_json(header["config"])
        network = build(config)
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: does not fit this version of unflat; train it again or use another unflat."
        ) from error
    return Teacher(network, config.resolution, device)
