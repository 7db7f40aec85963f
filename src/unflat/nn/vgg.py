"""The convolutions of VGG-16 (arXiv 1409.1556, configuration D), for distances between pictures.

Names of weights as in torchvision's published file (`features.0.weight` ...), which is therefore
read as it is: ``from_published(Vgg16, state)``. Its classifier is not used.
"""

from jaxtyping import Float
from torch import Tensor, nn

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions; then halved


class Vgg16(nn.Module):
    """Five feature maps of a picture: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3."""

    channels = tuple(channels for channels, _ in _STAGES)
    """Of the five maps."""
    smallest_side = 16
    """Pixels that a picture needs to leave something after four halvings."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        taps: list[int] = []
        entering = 3
        for channels, convolutions in _STAGES:
            if layers:
                layers.append(nn.MaxPool2d(2))
            for _ in range(convolutions):
                layers += [nn.Conv2d(entering, channels, 3, padding=1), nn.ReLU()]
                entering = channels
            taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self._taps = frozenset(taps)

    def forward(self, normalized: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """The five maps, `batch channels h w` each; sides halve, rounded down, from map to map.

        Args:
            normalized: in the scale that the weights were trained for.
        """
        maps: list[Tensor] = []
        for place, layer in enumerate(self.features):
            normalized = layer(normalized)
            if place in self._taps:
                maps.append(normalized)
        return maps
