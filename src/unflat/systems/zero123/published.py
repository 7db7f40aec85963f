"""Zero-1-to-3 with the weights that others have published, as a model of views.

Latent diffusion at 256 pixels. The picture goes in twice: as one token, CLIP's embedding together
with the pose, and as the autoencoder's mean of it beside the noisy latent, which is *not* scaled as
latents are. What the network is told of nothing (null) differs between the authors' training and
their sampling; both are here by name.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unflat.errors import UserError
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.clip_pixels import ClipPixels, clip_pixels
from unflat.systems.zero123.model import Tensors, Views
from unflat.systems.zero123.one_token import AttentionConstants, fold_attention
from unflat.systems.zero123.schedule import NoiseSchedule, Prediction

PoseNumbers = Literal["relative", "stable"]
"""Fourth number of the pose: how much farther the camera stands (Zero-1-to-3), or the polar angle
of the picture itself (Stable Zero123). Nothing in a file says which."""
Null = Literal["sampling", "training"]
"""``sampling``: no token and no picture, as the authors' sampler has it. ``training``: no embedding
and no picture, but the pose, as their training drops them."""

SIDE = 256
LATENT_SCALE = 0.18215  # of Stable Diffusion's latents: about one over their spread
_FACTOR = 8  # pixels of a latent along a side


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The parts of a published model, filled, all on one device."""

    unet: nn.Module
    """Diffusers' denoiser, with its cross-attention."""
    vae: nn.Module
    """Diffusers' autoencoder."""
    clip: nn.Module
    """Transformers' picture tower with projection."""
    projection: nn.Linear
    """From embedding and pose to the token."""


class PublishedViews:
    """A published model; satisfies `unflat.systems.zero123.model.ViewModel`."""

    prediction: Prediction = "noise"
    side = SIDE
    foreground = 200 / 256
    guidance_scale = 3.0

    def __init__(
        self,
        networks: Networks,
        *,
        name: str,
        pose_numbers: PoseNumbers = "relative",
        pixels: ClipPixels = "authors",
        null: Null = "sampling",
        plain_attention: bool = False,
        licence: str = "not stated",
        notices: tuple[str, ...] = (),
    ) -> None:
        """A model of filled networks; `pipeline.load_view_model` reads one from a file.

        Args:
            networks: are kept, and changed where attention is folded.
            name: for reports.
            pose_numbers: what the pose is told in.
            pixels: what CLIP is given.
            null: what guidance takes for nothing.
            plain_attention: keep the cross-attention and ask it at every step, which gives the
                same to rounding and takes longer: to compare, and to train.
            licence: what the weights may be used for.
            notices: what a person should know of the file.
        """
        self.name, self.licence, self.notices = name, licence, notices
        self.pose_numbers: PoseNumbers = pose_numbers
        self.pixels: ClipPixels = pixels
        self.null_kind: Null = null
        self.schedule = NoiseSchedule.scaled_linear()
        self.unet: Any = networks.unet
        self.vae: Any = networks.vae
        self.clip: Any = networks.clip
        self.projection = networks.projection.float()
        channels = int(self.unet.config.out_channels)
        self.latent_shape: tuple[int, int, int] = (channels, SIDE // _FACTOR, SIDE // _FACTOR)
        self.constants: AttentionConstants | None = None
        if not plain_attention:
            self.constants = fold_attention(self.unet)
        self._is_offloading = False

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes."""
        return self.unet.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the denoiser."""
        return self.unet.conv_in.weight.dtype

    def slice_decoding(self) -> None:
        """From now on take pictures through the autoencoder one by one."""
        self.vae.enable_slicing()

    def offload(self) -> None:
        """From now on keep CLIP and the autoencoder on the CPU while they are not used.

        Gradients do not find their way back through them then.
        """
        self._is_offloading = True
        for module in (self.clip, self.vae):
            if module is not None:
                module.to("cpu")

    def drop_encoders(self) -> None:
        """Free what only `reference` and `encode` need, once all pictures have been seen."""
        self.clip = None
        self.vae.encoder = self.vae.quant_conv = None

    @torch.no_grad()
    def reference(
        self,
        image: Float[Tensor, "batch 3 side side"],
        opacity: Float[Tensor, "batch side side"],
        elevation: Float[Tensor, " batch"] | None = None,
    ) -> Tensors:
        """All of pictures that does not depend on a pose; see `ViewModel.reference`.

        Raises:
            UserError: this model has to be told the elevation, and is not.
        """
        if elevation is None and self.pose_numbers == "stable":
            raise UserError(
                f"{self.name}: is told how high the camera of the picture stood; give "
                "--input-elevation-deg, 0 being level with the object."
            )
        embedding = self.embed(image).to(self.device)
        unknown = torch.zeros(len(image))
        return Tensors(
            {
                "embedding": embedding,
                "picture": self.distribution(image).mode().to(self.device),
                "elevation": (unknown if elevation is None else elevation).to(embedding),
            }
        )

    @torch.no_grad()
    def embed(self, image: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch width"]:
        """CLIP's embeddings of pictures, in float32."""
        if self.clip is None:
            raise ValueError("the encoders of this model were dropped")
        with self._used(self.clip) as clip:
            weight = clip.visual_projection.weight
            size = clip.config.image_size
            seen = clip_pixels(image.to(weight.device).float(), size, self.pixels)
            return clip(pixel_values=seen.to(weight.dtype)).image_embeds.float()

    def distribution(self, image: Float[Tensor, "batch 3 side side"]) -> Any:
        """The autoencoder's distribution of pictures (diffusers' object), as it is: not scaled."""
        if self.vae.encoder is None:
            raise ValueError("the encoders of this model were dropped")
        with self._used(self.vae) as vae:
            normalized = (image * 2 - 1).to(vae.post_quant_conv.weight)
            return vae.encode(normalized, return_dict=False)[0]

    def condition(self, reference: Tensors, pose: RelativePose) -> Tensors:
        """What the network is told; see `ViewModel.condition`.

        Parts: ``token`` (after the projection, or the constants of all attention), ``picture``,
        ``pose`` (its four numbers).
        """
        if len(reference) == 1:
            reference = reference.repeat(len(pose.polar))
        known = reference.parts
        pose = pose.to(known["embedding"])
        if self.pose_numbers == "stable":
            numbers = pose.stable_embedding(known["elevation"])
        else:
            numbers = pose.embedding()
        return Tensors(
            {
                "token": self._told(self.context(known["embedding"], numbers)),
                "picture": known["picture"],
                "pose": numbers,
            }
        )

    def context(
        self, embedding: Float[Tensor, "batch width"], numbers: Float[Tensor, "batch 4"]
    ) -> Float[Tensor, "batch 1 width"]:
        """The token: a projection of CLIP's embedding and the pose's four numbers."""
        return self.projection(torch.cat([embedding, numbers], dim=-1).float())[:, None]

    def null(self, condition: Tensors) -> Tensors:
        """What it is told where guidance wants it to know nothing; see `Null`."""
        numbers = condition.parts["pose"]
        nothing = numbers.new_zeros(len(numbers), self.projection.out_features)
        is_told = self.null_kind == "training"
        token = self.context(nothing, numbers) if is_told else nothing[:, None]
        return Tensors(
            {
                "token": self._told(token),
                "picture": torch.zeros_like(condition.parts["picture"]),
                "pose": numbers,
            }
        )

    def predict(
        self,
        noisy: Float[Tensor, "batch channels height width"],
        timestep: Int[Tensor, " batch"],
        condition: Tensors,
    ) -> Float[Tensor, "batch channels height width"]:
        """The noise, by the network, in the precision of what is noisy."""
        told = condition.parts
        both = torch.cat([noisy.to(self.dtype), told["picture"].to(self.dtype)], dim=1)
        said = self.unet(both, timestep, told["token"].to(self.dtype), return_dict=False)[0]
        return said.to(noisy.dtype)

    def encode(
        self,
        image: Float[Tensor, "batch 3 side side"],
        opacity: Float[Tensor, "batch side side"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Latents of pictures: the mean of the autoencoder's distribution, scaled."""
        return self.distribution(image).mode().float() * LATENT_SCALE

    def decode(self, latent: Float[Tensor, "batch channels height width"]) -> Views:
        """Pictures of latents; differentiable, not clipped."""
        with self._used(self.vae) as vae:
            weight = vae.post_quant_conv.weight
            decoded = vae.decode(latent.to(weight) / LATENT_SCALE, return_dict=False)[0]
        return Views(((decoded.float() + 1) / 2).to(latent.device), None)

    def _told(self, token: Float[Tensor, "batch 1 width"]) -> Tensor:
        return token if self.constants is None else self.constants(token)

    @contextlib.contextmanager
    def _used(self, module: Any) -> Iterator[Any]:
        """A network where the denoiser is, for as long as it is used."""
        if not self._is_offloading:
            yield module
            return
        module.to(self.device)
        try:
            yield module
        finally:
            module.to("cpu")


def widened(weight: Float[Tensor, "out 4 3 3"]) -> Float[Tensor, "out 8 3 3"]:
    """A first convolution that also sees a picture and makes nothing of it yet."""
    return torch.cat([weight, torch.zeros_like(weight)], dim=1)


def first_projection(width: int, generator: torch.Generator) -> nn.Linear:
    """The projection with which training begins: the embedding as it is, and a little pose.

    Identity for the embedding, bias 0; the pose's four columns keep a linear layer's ordinary
    start, uniform within one over the root of the inputs, as in the authors' code.
    """
    inputs = width + 4
    projection = nn.Linear(inputs, width)
    spread = inputs**-0.5
    with torch.no_grad():
        projection.weight.copy_(torch.eye(width, inputs))
        projection.weight[:, width:].uniform_(-spread, spread, generator=generator)
        projection.bias.zero_()
    return projection.requires_grad_(False)
