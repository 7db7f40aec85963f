"""Depth networks that others have trained, read through transformers: DPT, Depth Anything and kin.

Pictures are resized and normalised as the model's own ``preprocessor_config.json`` says, in torch,
since transformers' own way needs torchvision for some of them. ZoeDepth's mirrored border is left
away; its maps are less sure along the border for that.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.data.depth_maps import Meaning
from unflat.errors import UserError, require_extra
from unflat.hub.published_folder import published_folder
from unflat.pretrained import load_network, read_settings

NEAREST = 1e-3
"""Share of the farthest depth below which a metric network's answer is no surface but a fault."""

_BAD_FOLDER = "give the folder of a depth model as transformers saves it"
_MEANINGS: dict[str, Meaning] = {
    "dpt": "disparity",
    "depth_anything": "disparity",
    "depth_pro": "disparity",
    "zoedepth": "depth",
    "glpn": "depth",
}
_MODES: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # Pillow's
_FLOORED = "glpn"  # keeps a picture's size, cut down to a multiple


class Preparation(NamedTuple):
    """How a published depth network wants its pictures."""

    size: tuple[int, int] | None
    """Height and width in pixels; None keeps the picture's own."""
    keeps_aspect: bool
    """Whether one scale is used for both sides: the one nearer to 1."""
    multiple: int
    """Pixels of which both sides become a multiple."""
    mode: Literal["bilinear", "bicubic"]
    """Of resizing."""
    mean: tuple[float, ...]
    """Subtracted, of values in [0, 1]."""
    std: tuple[float, ...]
    """Divided by."""

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which the network sees a picture of some size."""
        if self.size is None:
            return (
                max(1, height // self.multiple) * self.multiple,
                max(1, width // self.multiple) * self.multiple,
            )
        scales = [self.size[0] / height, self.size[1] / width]
        if self.keeps_aspect:
            nearer = scales[1] if abs(1 - scales[1]) < abs(1 - scales[0]) else scales[0]
            scales = [nearer, nearer]
        wanted = (scales[0] * height, scales[1] * width)
        rows, columns = (max(1, round(side / self.multiple)) * self.multiple for side in wanted)
        return rows, columns

    def __call__(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 input_height input_width"]:
        """Pictures in [0, 1], resized and normalised."""
        size = self.input_size(*images.shape[-2:])
        resized = functional.interpolate(
            images, size, mode=self.mode, align_corners=False, antialias=True
        ).clamp(0, 1)  # bicubic weights overshoot at edges
        mean, std = images.new_tensor(self.mean), images.new_tensor(self.std)
        return (resized - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


class PublishedDepth:
    """A depth network of transformers; satisfies `AnyShapeEstimator`."""

    def __init__(
        self,
        module: nn.Module,
        preparation: Preparation,
        meaning: Meaning,
        *,
        name: str = "given",
        sha256: str = "",
    ) -> None:
        """A network that is already loaded; `open_published` loads one.

        Args:
            module: gives ``predicted_depth`` for ``pixel_values``.
            preparation: of its pictures.
            meaning: of what it gives.
            name: for reports.
            sha256: of the file of weights.
        """
        self.module = module.eval().requires_grad_(False)
        self.preparation, self.meaning = preparation, meaning
        self.name, self.sha256 = name, sha256

    def estimate(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch 1 side side"]:
        """Disparity of squares, in [0, 1] for each picture; larger is nearer."""
        return self.estimate_any(images)

    @torch.no_grad()
    def estimate_any(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """Disparity of pictures of any shape, in [0, 1] for each; larger is nearer.

        Raises:
            UserError: the network gives values that are not finite.
        """
        weights = next(self.module.parameters())
        found = self.module(pixel_values=self.preparation(images.to(weights))).predicted_depth
        if not bool(found.isfinite().all()):
            raise UserError(f"{self.name}: gives values that are not finite; try another model.")
        disparity = found[:, None].float()
        if self.meaning == "depth":
            farthest = disparity.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)
            disparity = 1 / disparity.clamp_min(NEAREST * farthest)
        disparity = functional.interpolate(
            disparity, images.shape[-2:], mode="bilinear", align_corners=False, antialias=True
        )
        low, high = disparity.amin((1, 2, 3), True), disparity.amax((1, 2, 3), True)
        return ((disparity - low) / (high - low).clamp_min(1e-12)).to(images.device)


def open_published(
    source: str | Path,
    *,
    meaning: Meaning | None = None,
    device: str = "cpu",
    offline: bool = False,
) -> PublishedDepth:
    """A depth network from a folder that transformers has saved, or from the Hugging Face hub.

    Args:
        source: the folder, or a hub id as in "depth-anything/Depth-Anything-V2-Small-hf".
        meaning: of what the network gives; told by its kind if not given.
        device: where it runs.
        offline: whether only what was downloaded before may be used.

    Raises:
        UserError: transformers is missing; there is no such model; a file of it is missing or
            damaged; it is no depth model, or one whose kind does not tell what it gives.
    """
    folder = published_folder(source, offline=offline)
    transformers = require_extra("transformers", "diffusion", str(source))
    config = read_settings(folder.path / "config.json", _BAD_FOLDER)
    kind = str(config.get("model_type"))
    known = transformers.MODEL_FOR_DEPTH_ESTIMATION_MAPPING.keys()
    if kind not in {entry.model_type for entry in known}:
        raise UserError(f"{source}: holds a model of type {kind}, which sees no depth.")
    meaning = meaning or meaning_of(config)
    if meaning is None:
        raise UserError(
            f"{source}: a model of type {kind} does not tell whether it gives depth or disparity; "
            "add --depth-from depth or --depth-from disparity."
        )
    preparation = read_preparation(folder.path / "preprocessor_config.json", kind)
    network = transformers.AutoModelForDepthEstimation
    module = load_network(transformers, network, folder.path, _BAD_FOLDER)
    return PublishedDepth(
        module.to(device), preparation, meaning, name=folder.name, sha256=folder.sha256
    )


def meaning_of(config: dict[str, Any]) -> Meaning | None:
    """Whether a network's values grow with depth or with disparity, from its ``config.json``.

    Relative models (DPT, Depth Anything, Depth Pro before its last step) give disparity; metric
    ones (ZoeDepth, GLPN, Depth Anything's metric kind, DPT heads over DINOv2) give depth. None for
    kinds that are not known here.
    """
    kind = str(config.get("model_type"))
    is_metric = config.get("depth_estimation_type") == "metric"
    if is_metric or (kind == "dpt" and config.get("add_projection")):
        return "depth"
    return _MEANINGS.get(kind)


def read_preparation(path: Path, kind: str) -> Preparation:
    """How pictures are prepared, from a ``preprocessor_config.json``.

    Args:
        path: of the file.
        kind: ``model_type`` of the network.

    Raises:
        UserError: the file is missing or damaged, or asks for something that is not done here.
    """
    config = read_settings(path, _BAD_FOLDER)
    try:
        size = config.get("size") if config.get("do_resize", True) else None
        multiple = int(config.get("ensure_multiple_of") or 1)
        if kind == _FLOORED or size is None:
            size, multiple = None, int(config.get("size_divisor") or multiple)
        elif isinstance(size, dict):
            size = (int(size["height"]), int(size["width"]))
        else:
            size = (int(size), int(size))
        is_normalized = bool(config.get("do_normalize", kind != _FLOORED))
        mean = tuple(map(float, config["image_mean"])) if is_normalized else (0.0, 0.0, 0.0)
        std = tuple(map(float, config["image_std"])) if is_normalized else (1.0, 1.0, 1.0)
        resample = int(config.get("resample", 3))
        is_sane = min(multiple, *(size or (1,)), *std) > 0 and len(mean) == len(std) == 3
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: does not say size, image_mean and image_std; {_BAD_FOLDER}."
        ) from error
    pads = bool(config.get("do_pad")) and kind == "dpt" and bool(config.get("size_divisor"))
    if resample not in _MODES or not is_sane or pads:
        raise UserError(
            f"{path}: asks for resample {resample}, size {size}{', padding' if pads else ''}; only "
            f"bilinear (2) and bicubic (3) to a size above 0 can be done; {_BAD_FOLDER}."
        )
    keeps = bool(config.get("keep_aspect_ratio"))
    return Preparation(size, keeps, multiple, _MODES[resample], mean, std)
