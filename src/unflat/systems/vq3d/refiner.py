"""Where the visible surface lies, seen by the photo itself: the detail mode's geometry.

A network reads the picture, the tokens' own surface and the encoder's features (a path that the
tokens do not carry) and gives the normalised disparity of every pixel, how sure it is of it, and
how soft a sheet should stand there. It never changes the tokens or what is rendered from them.
"""

from jaxtyping import Float
from torch import Tensor

from unflat.nn.depth_net import DepthGuess, DepthNet

Refined = DepthGuess


class DepthRefiner(DepthNet):
    """A `DepthNet` that starts from the tokens' surface."""

    def __init__(self, encoder_width: int, width: int):
        """Channels at half resolution; they double once, then triple."""
        super().__init__(
            (width, 2 * width, 6 * width), 2, known=1, context=encoder_width, mlp_ratio=3.25
        )

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] it asks for more
        self,
        image: Float[Tensor, "batch 3 height width"],
        surface: Float[Tensor, "batch 1 height width"],
        features: Float[Tensor, "batch n dim"],
    ) -> Refined:
        """The visible surface.

        Args:
            image: in [0, 1], at the model's resolution.
            surface: the tokens' own normalised disparity, the start of the answer.
            features: of the encoder, tokens in raster order.
        """
        return super().forward(image, surface, features)
