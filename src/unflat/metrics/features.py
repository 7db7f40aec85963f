"""What turns pictures into the vectors that FID, KID and their like compare.

    features = InceptionFeatures(from_published(FidInception, state), sha256=digest)
    features(images)  # batch 2048

A figure belongs to its network: reports name it after `Features.name` and print `describe()`.
"""

from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.errors import UserError, require_extra
from unflat.metrics.checks import refuse_nan
from unflat.metrics.perceptual import feature_distance
from unflat.nn.feature_net import MAX_SIDE, FeatureNet
from unflat.nn.inception import FEATURES, INPUT_SIDE, FidInception
from unflat.pretrained import load_network, read_settings

_BICUBIC = 3  # Pillow's number
_KINDS = ("clip", "clip_vision_model", "dinov2")
_BAD_FOLDER = "give the folder of a CLIP or DINOv2 model as transformers saves it"


@runtime_checkable
class Features(Protocol):
    """Pictures to vectors."""

    name: str
    """Short, as metrics are named after it: "inception", "unflat", "clip-vit-base-patch32"."""
    sha256: str
    """Of the file of weights."""
    dim: int
    """Numbers for each picture."""
    has_probabilities: bool
    """Whether this is a `Classifier` as well, so that it can serve the Inception score."""

    def describe(self) -> dict[str, str | int]:
        """What a report says: name, hash, input size, how pictures are resized."""
        ...

    def __call__(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Vectors of pictures in [0, 1], float32 on the network's device."""
        ...


@runtime_checkable
class Classifier(Features, Protocol):
    """Features that tell classes too."""

    def probabilities(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Of each class, summing to 1."""
        ...

    def probabilities_of(
        self, features: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch classes"]:
        """`probabilities` from features that are there already; the network runs once for both."""
        ...


class InceptionFeatures:
    """Features of FID's Inception-v3."""

    name = "inception"
    dim = FEATURES
    has_probabilities = True

    def __init__(self, module: FidInception, sha256: str):
        """The network, which is put into evaluation mode, and the hash of its file."""
        self.module = module.eval()
        self.sha256 = sha256

    def describe(self) -> dict[str, str | int]:
        """Name, hash, input size, how pictures are resized."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "input_side": INPUT_SIDE,
            "resize": "bilinear, half-pixel centers, no antialiasing (pytorch-fid)",
        }

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 2048"]:
        """Averaged features of the last block.

        Args:
            images: clamped to [0, 1] first.

        Raises:
            ValueError: NaN or infinity; the message says in which images.
        """
        return self.module(_prepared(self.name, images, self.module))

    def probabilities(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 1008"]:
        """Of the classes, as the Inception score takes them.

        Args:
            images: clamped to [0, 1] first.

        Raises:
            ValueError: NaN or infinity; the message says in which images.
        """
        return self.probabilities_of(self(images))

    @torch.no_grad()
    def probabilities_of(
        self, features: Float[Tensor, "batch 2048"]
    ) -> Float[Tensor, "batch 1008"]:
        """`probabilities` from features that are there already; the network runs once for both."""
        weights = self.module.fc.weight
        return self.module.logits(features.to(weights)).softmax(1)


class OwnFeatures:
    """Features of unflat's own small network, at the size that pictures come in, at most 128 px.

    Pictures are reduced to that by antialiased bicubic. What is measured with it carries its name:
    it orders methods on the same pictures and is comparable with no figure of another network.
    """

    has_probabilities = False

    def __init__(self, module: FeatureNet, *, name: str, sha256: str):
        """The network and the hash of the file it came from."""
        # the order of memory in which convolutions are a fifth faster
        self.module = module.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] torch's stub lacks it
        self.name, self.sha256, self.dim = name, sha256, module.dim

    def describe(self) -> dict[str, str | int]:
        """Name, hash, and at what size pictures are seen."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "input": f"as given, at most {MAX_SIDE} px",
            "resize": "antialiased bicubic",
        }

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """See `Features`."""
        return self.module(self._seen(images))

    def distance(
        self,
        images: Float[Tensor, "batch 3 height width"],
        references: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, " batch"]:
        """`feature_distance` of pairs of pictures, in [0, 2]; lower is better. Differentiable."""
        pairs = self.module.maps(self._seen(images)), self.module.maps(self._seen(references))
        return feature_distance(*pairs)

    def _seen(self, images: Tensor) -> Tensor:
        refuse_nan(images, f"the input of {self.name}")
        images = images.to(self.module.center).clamp(0, 1)
        images = images.contiguous(memory_format=torch.channels_last)
        longest = max(images.shape[-2:])
        if longest <= MAX_SIDE:
            return images
        size = [max(1, round(side * MAX_SIDE / longest)) for side in images.shape[-2:]]
        return functional.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1)


class Preparation(NamedTuple):
    """How a published network wants its pictures, from its `preprocessor_config.json`."""

    shorter_side: int
    """Pixels; bicubic with antialiasing."""
    crop: tuple[int, int]
    """Height and width that are cut from the middle."""
    mean: tuple[float, float, float]
    """Subtracted, of values in [0, 1]."""
    std: tuple[float, float, float]
    """Divided by."""

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 crop_height crop_width"]:
        """Pictures in [0, 1], resized, cropped, normalized."""
        height, width = images.shape[-2:]
        shorter = min(height, width)
        size = (self.shorter_side * height // shorter, self.shorter_side * width // shorter)
        images = functional.interpolate(
            images, size=size, mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 1)  # bicubic weights overshoot at edges
        top, left = (size[0] - self.crop[0]) // 2, (size[1] - self.crop[1]) // 2
        images = images[..., top : top + self.crop[0], left : left + self.crop[1]]
        mean, std = images.new_tensor(self.mean), images.new_tensor(self.std)
        return (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)


class TransformersFeatures:
    """Features of a published CLIP (image embedding) or DINOv2 (class token).

    Pictures are prepared by torch alone, the same on every machine: the package's own image
    processors differ between their back ends.
    """

    has_probabilities = False

    def __init__(
        self, module: nn.Module, preparation: Preparation, *, name: str, sha256: str, dim: int
    ):
        """A loaded network; `open_folder` makes one from files."""
        self.module = module.eval().requires_grad_(False)
        self.preparation = preparation
        self.name, self.sha256, self.dim = name, sha256, dim

    @classmethod
    def open_folder(
        cls, folder: Path, *, name: str, sha256: str, device: str | torch.device = "cpu"
    ) -> "TransformersFeatures":
        """The network in a folder that transformers has saved; nothing is downloaded.

        Args:
            folder: with `config.json`, `preprocessor_config.json` and the weights.
            name: as metrics are named after it.
            sha256: of the file of weights.
            device: where it runs.

        Raises:
            UserError: transformers is missing, a file is missing or damaged, or the folder holds
                another kind of network.
        """
        transformers = require_extra("transformers", "diffusion", name)
        config = read_settings(folder / "config.json", _BAD_FOLDER)
        kind = str(config.get("model_type"))
        if kind not in _KINDS:
            raise UserError(f"{folder}: holds a model of type {kind}; {_BAD_FOLDER}.")
        is_clip = kind != "dinov2"
        build = transformers.CLIPVisionModelWithProjection if is_clip else transformers.Dinov2Model
        preparation = read_preparation(folder / "preprocessor_config.json")
        module = load_network(transformers, build, folder, _BAD_FOLDER)
        dim = int(module.config.projection_dim if is_clip else module.config.hidden_size)
        return cls(module.to(device), preparation, name=name, sha256=sha256, dim=dim)

    def describe(self) -> dict[str, str | int]:
        """Name, hash, input size, how pictures are resized."""
        height, width = self.preparation.crop
        return {
            "name": self.name,
            "sha256": self.sha256,
            "input_side": f"{height}x{width}" if height != width else height,
            "resize": (
                f"bicubic, antialiased, shorter side {self.preparation.shorter_side}, center crop"
            ),
        }

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Image embeddings (CLIP, not normalized) or class tokens (DINOv2).

        Args:
            images: clamped to [0, 1] first.

        Raises:
            ValueError: NaN or infinity; the message says in which images.
        """
        prepared = self.preparation(_prepared(self.name, images, self.module))
        answer = self.module(pixel_values=prepared)
        embeds = getattr(answer, "image_embeds", None)
        return answer.last_hidden_state[:, 0] if embeds is None else embeds


def read_preparation(path: Path) -> Preparation:
    """How pictures are prepared, from a `preprocessor_config.json`.

    Raises:
        UserError: the file is missing or damaged, or asks for something that is not done here.
    """
    config = read_settings(path, _BAD_FOLDER)
    try:
        size, crop = config["size"], config["crop_size"]
        shorter = size["shortest_edge"] if isinstance(size, dict) else size
        height, width = (crop["height"], crop["width"]) if isinstance(crop, dict) else (crop, crop)
        mean_red, mean_green, mean_blue = config["image_mean"]
        std_red, std_green, std_blue = config["image_std"]
        resample = config.get("resample", _BICUBIC)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: does not say size, crop_size, image_mean and image_std; {_BAD_FOLDER}."
        ) from error
    if resample != _BICUBIC or min(shorter, height, width) < 1 or max(height, width) > shorter:
        raise UserError(
            f"{path}: asks for resample {resample}, side {shorter}, crop {height} x {width}; only "
            f"bicubic (3) and a crop within the side can be done; {_BAD_FOLDER}."
        )
    return Preparation(
        shorter_side=int(shorter),
        crop=(int(height), int(width)),
        mean=(float(mean_red), float(mean_green), float(mean_blue)),
        std=(float(std_red), float(std_green), float(std_blue)),
    )


def _prepared(name: str, images: Tensor, module: nn.Module) -> Tensor:
    """Finite pictures, clamped, where and as the network's weights are."""
    refuse_nan(images, f"the input of {name}")
    return images.to(next(module.parameters())).clamp(0, 1)
