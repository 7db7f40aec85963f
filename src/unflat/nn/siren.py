"""FiLM-SIREN: a network of sines, whose frequencies and phases a latent sets (pi-GAN).

Chan et al., "pi-GAN" (arXiv 2012.00926), with the starts of its code; sines as activations after
SIREN (arXiv 2006.09661).

    mapping, network = FilmMapping(256, layers=9, width=256), FilmSiren(width=256, depth=8)
    film = mapping(torch.randn(4, 256), truncation=0.7)                  # 4 9 2 256
    raw, color = network(points, film, directions)                       # points 4 n 3 in [-1, 1]
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_SLOPE = 0.2  # of the mapping's leaky ReLU
_LAST_SHARE = 0.25  # of the mapping's last weights
_RATE, _RATE_SPREAD = 30.0, 15.0  # frequency of a layer: 30 + 15 gamma
_START_RATE = 25.0  # by which the first weights are divided; in pi-GAN's code not 30
_FRONT = (0.0, 0.0, -1.0)  # a ray that looks at the front


class FilmMapping(nn.Module):
    """Latents to a frequency and a phase of every feature of every layer.

    Four linear layers with leaky ReLU between them. Truncation moves frequencies and phases, not
    the latent, towards their average, which is computed from many latents whenever it is asked for
    (pi-GAN's way): it always belongs to the weights at hand, averaged over steps or not.
    """

    def __init__(self, latent_dim: int = 256, layers: int = 9, width: int = 256, hidden: int = 256):
        """A mapping with its first weights: Kaiming's, the last ones times 1/4 (pi-GAN's code).

        Args:
            latent_dim: numbers of a latent.
            layers: that are modulated; a `FilmSiren` has one more than its depth.
            width: features of these.
            hidden: features of the mapping's own layers.
        """
        super().__init__()
        self.latent_dim, self.shape = latent_dim, (layers, 2, width)
        inner = [nn.Linear(entering, hidden) for entering in (latent_dim, hidden, hidden)]
        self.layers, self.last = nn.ModuleList(inner), nn.Linear(hidden, layers * 2 * width)
        for layer in (*inner, self.last):
            nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
        with torch.no_grad():
            self.last.weight.mul_(_LAST_SHARE)

    def forward(
        self,
        latent: Float[Tensor, "batch latent_dim"],
        truncation: float = 1.0,
        average: Float[Tensor, "layers 2 width"] | None = None,
    ) -> Float[Tensor, "batch layers 2 width"]:
        """Gamma and beta of each layer: its sines have frequencies 15 gamma + 30, phases beta.

        Args:
            latent: normally distributed.
            truncation: how far from the average they go: 1 all the way, 0 not at all.
            average: of an earlier call of `average`, where many calls would each ask for it.
        """
        film = self._mapped(latent)
        if truncation == 1:
            return film
        return (self.average() if average is None else average).lerp(film, truncation)

    @torch.no_grad()
    def average(self, count: int = 10_000) -> Float[Tensor, "layers 2 width"]:
        """Mean of gamma and beta over latents, always the same ones; 10000 in pi-GAN."""
        weight = self.last.weight
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(count, self.latent_dim, generator=generator).to(weight)
        return sum(
            (self._mapped(part).sum(0) for part in latents.split(1000)),
            start=weight.new_zeros(self.shape),
        ) / len(latents)

    def _mapped(self, vector: Tensor) -> Tensor:
        for layer in self.layers:
            vector = functional.leaky_relu(layer(vector), _SLOPE)
        return self.last(vector).unflatten(1, (2, self.shape[0], -1)).transpose(1, 2)


class FilmLayer(nn.Module):
    """sin((15 gamma + 30) (W x + b) + beta), with gamma and beta of each scene."""

    def __init__(self, entering: int, leaving: int, *, is_first: bool = False):
        """A layer with its first weights, uniform: within 1 / entering, or sqrt(6 / entering) / 25.

        Args:
            entering: features.
            leaving: features.
            is_first: whether coordinates enter, which are not the sines of another layer.
        """
        super().__init__()
        self.linear = nn.Linear(entering, leaving)
        if is_first:
            nn.init.uniform_(self.linear.weight, -1 / entering, 1 / entering)
        else:
            start_for_sines(self.linear)

    def forward(
        self,
        features: Float[Tensor, "batch points entering"],
        film: Float[Tensor, "batch 2 leaving"],
    ) -> Float[Tensor, "batch points leaving"]:
        """Features in [-1, 1].

        The frequencies are multiplied into the weights: a linear layer for each scene, and nothing
        of the size of all points but its sines.
        """
        rate, phase = _RATE_SPREAD * film[:, 0] + _RATE, film[:, 1]
        weight = rate[:, :, None] * self.linear.weight
        bias = torch.addcmul(phase, rate, self.linear.bias)
        return torch.baddbmm(bias[:, None], features, weight.mT).sin()


class FilmSiren(nn.Module):
    """Points and directions to a number and a colour, by layers of sines.

    The number is a density before its activation or a distance, as whoever asks decides. It depends
    on points alone. In half precision the sine of a large number is noise, so all of this is
    computed in single precision at least, under autocast as well.
    """

    def __init__(
        self, width: int = 256, depth: int = 8, out: int = 3, *, view_dependent: bool = True
    ):
        """A network with its first weights.

        Args:
            width: features of each layer.
            depth: layers that see points alone.
            out: colours.
            view_dependent: whether the layer of colours sees directions.
        """
        super().__init__()
        self.width, self.depth, self.out = width, depth, out
        self.view_dependent = view_dependent
        self.layers = nn.ModuleList(
            FilmLayer(width if number else 3, width, is_first=number == 0)
            for number in range(depth)
        )
        self.to_raw = nn.Linear(width, 1)
        self.color_layer = FilmLayer(width + 3 * view_dependent, width)
        self.to_color = nn.Linear(width, out)
        start_for_sines(self.to_raw)
        start_for_sines(self.to_color)

    @property
    def film_layers(self) -> int:
        """How many layers are modulated: the depth, and the layer of colours."""
        return self.depth + 1

    def forward(
        self,
        points: Float[Tensor, "batch n 3"],
        film: Float[Tensor, "batch layers 2 width"],
        directions: Float[Tensor, "batch n 3"] | None = None,
    ) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n out"]]:
        """A number without bounds, and colours in [0, 1].

        Args:
            points: in [-1, 1].
            film: of a `FilmMapping`.
            directions: unit vectors of travel; without them all rays count as looking at the front,
                along -z.
        """
        with torch.autocast(points.device.type, enabled=False):
            points, film = _single(points), _single(film)
            hidden = self._hidden(points, film)
            entering = hidden
            if self.view_dependent:
                if directions is None:
                    directions = points.new_tensor(_FRONT).expand_as(points)
                entering = torch.cat([directions.to(hidden), hidden], dim=-1)
            color = self.to_color(self.color_layer(entering, film[:, -1]))
            return self.to_raw(hidden)[..., 0], color.sigmoid()

    def raw(
        self, points: Float[Tensor, "batch n 3"], film: Float[Tensor, "batch layers 2 width"]
    ) -> Float[Tensor, "batch n"]:
        """The number alone, see `forward`."""
        with torch.autocast(points.device.type, enabled=False):
            return self.to_raw(self._hidden(_single(points), _single(film)))[..., 0]

    @torch.no_grad()
    def first(self, count: int) -> "FilmSiren":
        """A network of its own that gives the first so many colours alone."""
        state = self.state_dict()
        for name in ("to_color.weight", "to_color.bias"):
            state[name] = state[name][:count]
        network = FilmSiren(self.width, self.depth, count, view_dependent=self.view_dependent)
        network.load_state_dict(state)
        return network.to(state["to_color.bias"].device)

    def _hidden(self, points: Tensor, film: Tensor) -> Tensor:
        if film.shape[1] != self.film_layers:
            raise ValueError(f"film is of {film.shape[1]} layers, must be {self.film_layers}")
        features = points
        for number, layer in enumerate(self.layers):
            features = layer(features, film[:, number])
        return features


def start_for_sines(layer: nn.Linear) -> None:
    """Uniform weights within sqrt(6 / entering) / 25: sines that enter keep their spread.

    SIREN's start, for the frequency that pi-GAN's code has there.
    """
    bound = math.sqrt(6 / layer.in_features) / _START_RATE
    nn.init.uniform_(layer.weight, -bound, bound)


def _single(values: Tensor) -> Tensor:
    """Half precision as single; others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
