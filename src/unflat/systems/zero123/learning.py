"""How a published model learns on: all of its denoiser, or adapters that fit a small GPU.

Liu et al., arXiv 2303.11328, and their code: denoiser and projection learn, the projection ten
times as fast; CLIP and the autoencoder do not, so that what they see is worked out once
(`unflat.systems.zero123.latents`).
"""

from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from unflat.nn.lora import add_adapters, place
from unflat.systems.zero123.model import Tensors
from unflat.systems.zero123.published import PublishedViews

UNET, PROJECTION = "unet", "cc_projection"
"""What learns, by the names that a file of ours has for it."""

_PROJECTION_RATE = 10.0  # times the denoiser's learning rate
# Queries and keys of cross-attention do nothing where there is one token; see `one_token`.
_ADAPTED = r"attn1\.to_[qkv]|attn1\.to_out\.0|attn2\.to_v|attn2\.to_out\.0"


@dataclass(frozen=True, kw_only=True)
class LearningConfig:
    """What of a published model learns."""

    lora: int = 0
    """Rank of adapters on the denoiser's attention, which learn in its place together with its
    first convolution; 0: all of the denoiser learns, as published."""
    alpha: float = 8.0
    """What adapters add is times alpha / rank."""
    recompute: bool = True
    """Compute what flows through the denoiser again on the way back, not keep it: less memory for a
    third more work."""

    def __post_init__(self) -> None:
        if self.lora < 0:
            raise ValueError(f"lora is {self.lora}; give a rank, or 0 for none")

    def to_json(self) -> dict[str, Any]:
        """Its numbers."""
        return asdict(self)


class PublishedLearning:
    """`Learning` of a published model with plain attention.

    Args:
        model: gets adapters if the config asks for them; asks for gradients where it learns.
        config: what learns.
    """

    def __init__(self, model: PublishedViews, config: LearningConfig) -> None:
        if model.constants is not None:
            raise ValueError("attention is folded into constants, which do not learn")
        unet: Any = model.unet
        if config.recompute:
            unet.enable_gradient_checkpointing()
        if config.lora:
            learned = add_adapters(unet, _ADAPTED, config.lora, config.alpha)
            # of zeros for the picture at the start of training: it has to learn as a whole
            place(learned, "conv_in", unet.conv_in.requires_grad_(True))
        else:
            learned = unet.requires_grad_(True)
        self.network: nn.Module = nn.ModuleDict(
            {UNET: learned, PROJECTION: model.projection.requires_grad_(True)}
        )

    def forget(
        self,
        reference: Tensors,
        embedding: Bool[Tensor, " batch"],
        picture: Bool[Tensor, " batch"],
        height: Bool[Tensor, " batch"],
    ) -> Tensors:
        """See `Learning`: zeros before the projection, which still tells the pose; and no picture.

        Heights are no part of what Zero-1-to-3 is told, and are not forgotten.
        """
        parts = reference.parts
        return Tensors(
            {
                **parts,
                "embedding": parts["embedding"].masked_fill(embedding[:, None], 0.0),
                "picture": parts["picture"].masked_fill(picture[:, None, None, None], 0.0),
            }
        )

    def own_terms(
        self, reference: Tensors, elevation: Float[Tensor, " batch"]
    ) -> dict[str, Float[Tensor, ""]]:
        """See `Learning`: none."""
        return {}

    def learning_groups(self) -> list[dict[str, Any]]:
        """See `Learning`: the projection learns faster; all decay, as published."""
        parts = dict(self.network.named_children())
        return [
            {"params": list(parts[UNET].parameters())},
            {"params": list(parts[PROJECTION].parameters()), "lr_scale": _PROJECTION_RATE},
        ]


def to_keep(averaged: dict[str, Tensor], last: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights for a file: the denoiser's average, and the projection as it is.

    The authors average the denoiser alone.

    Args:
        averaged: all weights of `PublishedLearning.network`, averaged.
        last: as trained.
    """
    return {name: (averaged if name.startswith(UNET) else last)[name] for name in last}


def learned_parameters(network: nn.Module) -> dict[str, int]:
    """How many numbers learn, by part."""
    return {
        name: sum(weight.numel() for weight in part.parameters())
        for name, part in network.named_children()
    }
