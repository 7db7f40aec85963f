"""From a training run to the network that is used, and from a file to the network."""

from pathlib import Path

import torch
from torch import Tensor

from unflat.data import PictureDataset
from unflat.errors import UserError
from unflat.nn.feature_net import FeatureNet
from unflat.systems.features.recipe import SYSTEM
from unflat.training import load_weights

_BATCH = 64
_TRUNK = "trunk."


@torch.no_grad()
def calibrated(
    weights: dict[str, Tensor],
    widths: tuple[int, ...],
    datasets: list[PictureDataset],
    most: int = 4096,
) -> FeatureNet:
    """The trunk of a run, its vectors centered and scaled by the pictures it learned from.

    Args:
        weights: of the recipe's networks.
        widths: channels of the stages.
        datasets: the run's; every data set gives the same number of pictures, spread evenly.
        most: pictures used, over all data sets.
    """
    network = FeatureNet(widths).eval()
    trunk = {
        name.removeprefix(_TRUNK): value
        for name, value in weights.items()
        if name.startswith(_TRUNK)
    }
    network.load_state_dict(trunk)
    pooled = []
    for dataset in datasets:
        count = min(len(dataset), most // len(datasets))
        chosen = torch.linspace(0, len(dataset) - 1, count).round().long().tolist()
        for start in range(0, count, _BATCH):
            images = dataset.batch(chosen[start : start + _BATCH])["image"]
            pooled.append(network.pooled(images))
    network.calibrate(torch.cat(pooled))
    return network


def load(path: str | Path) -> FeatureNet:
    """The network of a model file, in evaluation mode.

    Raises:
        UserError: no such file, or a model of another kind.
    """
    weights, header = load_weights(path)
    if header.get("system") != SYSTEM:
        raise UserError(
            f"{path}: is a model of {header.get('system')}, not a feature network; "
            "give a file that unflat train features has written."
        )
    network = FeatureNet(header["config"]["widths"])
    network.load_state_dict(weights)
    return network.eval()
