"""The convolutions of AlexNet with one tower (arXiv 1404.5997), for distances between pictures.

Names of weights as in torchvision's published file (`features.0.weight` ...), which is therefore
read as it is: ``from_published(AlexNet, state)``. Its classifier is not used.
"""

from jaxtyping import Float
from torch import Tensor, nn


class AlexNet(nn.Module):
    """Five feature maps of a picture: what each convolution leaves after its ReLU."""

    channels = (64, 192, 384, 256, 256)
    """Of the five maps."""
    smallest_side = 31
    """Pixels that a picture needs to leave something after two reductions."""

    def __init__(self):
        super().__init__()
        first, second, third, fourth, fifth = self.channels
        self.features = nn.Sequential(
            nn.Conv2d(3, first, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(first, second, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(second, third, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(third, fourth, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(fourth, fifth, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, normalized: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """The five maps, `batch channels h w` each; the last three have one size.

        Args:
            normalized: in the scale that the weights were trained for.
        """
        maps: list[Tensor] = []
        for layer in self.features:
            normalized = layer(normalized)
            if isinstance(layer, nn.ReLU):
                maps.append(normalized)
        return maps
