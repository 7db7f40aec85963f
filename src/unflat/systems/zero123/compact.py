"""A view model small enough for a laptop: Zero-1-to-3's idea in pixels, on the core install.

What it keeps of Liu et al. (arXiv 2303.11328): the reference picture comes in twice, beside the
noisy one as channels and as a context whose tokens are joined with the pose by one projection that
begins as the identity; both are dropped now and then, so that guidance is possible.

What is its own: pictures of 64 pixels with opacity instead of an autoencoder's latents; a small
encoder instead of CLIP, with a token for every part of the picture beside the one for all of it;
the clean picture instead of its noise, which a narrow network cannot carry through (arXiv
2511.13720); and two things more that may be told: how high the picture was taken, and the pose
once again, to every block.

    model = build(tiny())
    views = CompactViews(model, ...)
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unflat.geometry.relative_pose import RelativePose
from unflat.nn.unet import PictureTokens, UNet, sine_embedding
from unflat.systems.zero123.model import Tensors, Views
from unflat.systems.zero123.schedule import NoiseSchedule, Prediction
from unflat.training.recipe import decay_groups

CHANNELS = 4
"""Red, green, blue on white and opacity, in [-1, 1]."""
Tokens = Literal["none", "one", "all"]
"""What of the picture is in the context: nothing (pose alone), one token for all, or its parts."""

_POSE = 4 + 3  # Zero-1-to-3's four; sine and cosine of the elevation, and whether it is known
_PROJECTION_RATE = 3.0  # times the others' learning rate; published: 10, at a far lower rate
_WAVES = 4  # of each angle of the pose, doubling from one turn on


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of a small view model, and the ways in for the reference picture."""

    side: int = 64
    """Of pictures, pixels."""
    patch: int = 4
    """Pixels along a side that become one position of the first level."""
    widths: tuple[int, ...] = (96, 160)
    """Channels of each level."""
    blocks: int = 2
    """Residual blocks of a level, on each way."""
    attends: tuple[bool, ...] = (False, True)
    """For each level, whether positions look at each other and at the reference's tokens."""
    encoder: tuple[int, ...] = (64, 128)
    """Channels of each level of the reference's encoder; its tokens have the last."""
    embedding: int = 256
    """Numbers that tell timestep and pose to every block."""
    heads: int = 4
    """Of attention."""
    concat: bool = True
    """Whether the reference picture lies beside the noisy one."""
    tokens: Tokens = "all"
    """What of it is in the context."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Config":
        """The config that a file holds; lists become tuples."""
        known = {field.name for field in fields(cls)}
        kept: dict[str, Any] = {name: values[name] for name in values if name in known}
        for name in ("widths", "attends", "encoder"):
            kept[name] = tuple(kept[name])
        return cls(**kept)

    def to_json(self) -> dict[str, Any]:
        """Its numbers."""
        return asdict(self)


def tiny() -> Config:
    """Trains on a CPU in an hour or two: 64 pixels, 4 million parameters."""
    return Config()


def small() -> Config:
    """For one GPU: 128 pixels, 40 million parameters."""
    return Config(
        side=128,
        widths=(192, 320, 448),
        attends=(False, True, True),
        encoder=(96, 192, 320),
        embedding=512,
        heads=8,
    )


PRESETS = {"tiny": tiny, "small": small}
"""By name."""


class CompactNetwork(nn.Module):
    """All that learns: the reference's encoder, the projection of token and pose, the U-Net."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.encoder[-1]
        self.encoder = (
            PictureTokens(
                CHANNELS,
                side=config.side,
                patch=config.patch,
                widths=config.encoder,
                heads=config.heads,
            )
            if config.tokens != "none"
            else None
        )
        self.width = width
        self.projection = nn.Linear(width + _POSE, width)
        with torch.no_grad():  # Zero-1-to-3: the identity, pose columns as torch starts them
            self.projection.weight[:, :width] = torch.eye(width)
            self.projection.bias.zero_()
        numbers = config.embedding
        self.time = nn.Sequential(
            nn.Linear(numbers, numbers), nn.SiLU(), nn.Linear(numbers, numbers)
        )
        self.pose = nn.Sequential(
            nn.Linear(_POSE + 2 * 2 * _WAVES, numbers), nn.SiLU(), nn.Linear(numbers, numbers)
        )
        self.unet = UNet(
            2 * CHANNELS if config.concat else CHANNELS,
            CHANNELS,
            side=config.side,
            patch=config.patch,
            widths=config.widths,
            blocks=config.blocks,
            attends=config.attends,
            embedding=numbers,
            context=width,
            heads=config.heads,
        )


def build(config: Config) -> CompactNetwork:
    """The untrained networks of a config."""
    # convolutions on CPUs are faster by a half where channels lie side by side
    return CompactNetwork(config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class CompactViews:
    """A `ViewModel` of these networks.

    Args:
        network: with its weights.
        name: by which a person called it.
        header: of its file.
    """

    prediction: Prediction = "clean"
    foreground = 0.61
    guidance_scale = 1.5

    def __init__(
        self, network: CompactNetwork, name: str = "compact", header: dict[str, Any] | None = None
    ) -> None:
        self.network, self.name, self.header = network, name, header or {}
        self.side = network.config.side
        self.latent_shape: tuple[int, int, int] = (CHANNELS, self.side, self.side)
        self.schedule = NoiseSchedule.cosine()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.network.projection.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        return self.network.projection.weight.dtype

    def to(self, device: str | torch.device) -> "CompactViews":
        """Itself, computing there."""
        self.network.to(device)
        return self

    def reference(
        self,
        image: Float[Tensor, "batch 3 side side"],
        opacity: Float[Tensor, "batch side side"],
        elevation: Float[Tensor, " batch"] | None = None,
    ) -> Tensors:
        """See `ViewModel`: ``embedding`` (tokens), ``picture``, and ``height`` (three numbers)."""
        picture = self.encode(image, opacity).to(self.dtype)
        encoder = self.network.encoder
        if encoder is None:
            tokens = picture.new_zeros(len(picture), 1, self.network.width)
        else:
            tokens = encoder(picture)
        if self.network.config.tokens == "one":
            tokens = tokens[:, :1]
        height = picture.new_zeros(len(picture), 3)
        if elevation is not None:
            known = elevation.to(picture)
            height = torch.stack([known.sin(), known.cos(), torch.ones_like(known)], dim=-1)
        return Tensors({"embedding": tokens, "picture": picture, "height": height})

    def forget(
        self,
        reference: Tensors,
        embedding: Bool[Tensor, " batch"],
        picture: Bool[Tensor, " batch"],
        height: Bool[Tensor, " batch"],
    ) -> Tensors:
        """References of which something is not told: zeros in its place."""
        parts = reference.parts
        return Tensors(
            {
                "embedding": parts["embedding"].masked_fill(embedding[:, None, None], 0.0),
                "picture": parts["picture"].masked_fill(picture[:, None, None, None], 0.0),
                "height": parts["height"].masked_fill(height[:, None], 0.0),
            }
        )

    def learning_groups(self) -> list[dict[str, Any]]:
        """Parameters for AdamW: matrices decay; the projection learns faster, as published."""
        faster = list(self.network.projection.parameters())
        kept = {id(parameter) for parameter in faster}
        groups = [
            {**group, "params": [each for each in group["params"] if id(each) not in kept]}
            for group in decay_groups(self.network)
        ]
        return [*groups, {"params": faster, "lr_scale": _PROJECTION_RATE, "weight_decay": 0.0}]

    def condition(self, reference: Tensors, pose: RelativePose) -> Tensors:
        """See `ViewModel`: ``context``, ``picture``, and ``told`` (the pose for every block)."""
        parts, count = reference.parts, len(pose.polar)
        tokens = parts["embedding"].expand(count, -1, -1)
        height = parts["height"].expand(count, -1)
        moved = pose.to(tokens)
        numbers = torch.cat([moved.embedding(), height], dim=-1)
        joined = torch.cat([tokens, numbers[:, None].expand(-1, tokens.shape[1], -1)], dim=-1)
        told = self.network.pose(torch.cat([numbers, _waves(moved)], dim=-1))
        return Tensors(
            {
                "context": self.network.projection(joined),
                "picture": parts["picture"].expand(count, -1, -1, -1),
                "told": told,
                "numbers": numbers,
            }
        )

    def null(self, condition: Tensors) -> Tensors:
        """See `ViewModel`: nothing of the picture; the pose stays, as where it was dropped."""
        parts = condition.parts
        tokens = torch.zeros_like(parts["context"])
        numbers = parts["numbers"][:, None].expand(-1, tokens.shape[1], -1)
        context = self.network.projection(torch.cat([tokens, numbers], dim=-1))
        return Tensors({**parts, "context": context, "picture": torch.zeros_like(parts["picture"])})

    def predict(
        self,
        noisy: Float[Tensor, "batch channels height width"],
        timestep: Int[Tensor, " batch"],
        condition: Tensors,
    ) -> Float[Tensor, "batch channels height width"]:
        """See `ViewModel`: clean pictures."""
        network, parts = self.network, condition.parts
        waves = sine_embedding(timestep, network.config.embedding).to(self.dtype)
        embedding = nn.functional.silu(network.time(waves) + parts["told"])
        x = noisy.to(self.dtype)
        if network.config.concat:
            x = torch.cat([x, parts["picture"]], dim=1)
        return network.unet(x, embedding, parts["context"])

    def encode(
        self,
        image: Float[Tensor, "batch 3 side side"],
        opacity: Float[Tensor, "batch side side"],
    ) -> Float[Tensor, "batch channels side side"]:
        """See `ViewModel`: colors and opacity in [-1, 1]."""
        return 2 * torch.cat([image, opacity[:, None]], dim=1) - 1

    def decode(self, latent: Float[Tensor, "batch channels side side"]) -> Views:
        """See `ViewModel`: the way back."""
        values = 0.5 * (latent + 1)
        return Views(values[:, :3], values[:, 3])


def _waves(pose: RelativePose) -> Float[Tensor, "batch waves"]:
    """Both angles as sines and cosines of their multiples, so that small turns are told apart."""
    multiples = 2.0 ** torch.arange(_WAVES, device=pose.polar.device)
    angles = torch.cat([pose.polar[:, None] * multiples, pose.azimuth[:, None] * multiples], dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1) / math.sqrt(2)
