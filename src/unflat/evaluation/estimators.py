"""Where disparities of single pictures come from: a model, or files that any program wrote."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.disparity import read_disparity
from unflat.data.posed import resize_maps
from unflat.errors import UserError
from unflat.evaluation.reconstructor import Reconstructor

_ENDINGS = (".disparity.png", ".png", ".npz")


@runtime_checkable
class DepthEstimator(Protocol):
    """Something that tells the disparity of single pictures."""

    name: str
    """For the report and the table."""

    def describe(self) -> dict[str, object]:
        """What the report should keep of it."""
        ...

    def disparity(
        self, pictures: Float[Tensor, "batch 3 height width"], names: Sequence[str]
    ) -> Float[Tensor, "batch height width"]:
        """Disparity, near is large, in a scale and with a shift of its own.

        Args:
            pictures: in [0, 1].
            names: of the pictures in their data set, for those that read files.
        """
        ...


class FolderDepth:
    """Disparity files of a folder: ``NAME.png``, ``NAME.disparity.png`` or ``NAME.npz``.

    Args:
        folder: files as `unflat.data.read_disparity` takes them; larger is nearer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name

    def describe(self) -> dict[str, object]:
        """The folder's name."""
        return {"folder": self.folder.name}

    def disparity(
        self, pictures: Float[Tensor, "batch 3 height width"], names: Sequence[str]
    ) -> Float[Tensor, "batch height width"]:
        """The files' maps at the pictures' resolution.

        Raises:
            UserError: a picture has no file, or one that cannot be read.
        """
        return torch.stack([self._read(name, pictures.shape[-1]) for name in names])

    def _read(self, name: str, side: int) -> Float[Tensor, "side side"]:
        stem = Path(name).name
        for ending in _ENDINGS:
            file = self.folder / f"{stem}{ending}"
            if file.is_file():
                values = torch.from_numpy(read_disparity(file.read_bytes(), str(file)))
                _refuse(file, values)
                return resize_maps(values.float()[None, None], side)[0, 0]
        raise UserError(
            f"{self.folder}: has no disparity for {name}; add {stem}.png or {stem}.npz."
        )


def _refuse(file: Path, values: Float[Tensor, "height width"]) -> None:
    """Maps that would be scored as something else than what their program meant."""
    height, width = values.shape
    if height != width:
        raise UserError(
            f"{file}: is {width}x{height}, but the pictures are square; give square maps."
        )
    if file.suffix != ".npz":
        return
    with np.load(file) as arrays:
        for name in ("disparity", "inverse_depth"):
            if name in arrays and not np.isfinite(arrays[name]).all():
                raise UserError(f"{file}: its {name} holds NaN or infinity; write 0 for the sky.")


class ModelDepth:
    """What a system that reconstructs sees from the canonical camera.

    Args:
        reconstructor: the system.
        mode: one of its modes; its last one if not given.
    """

    def __init__(self, reconstructor: Reconstructor, mode: str | None = None) -> None:
        self.reconstructor = reconstructor
        self.mode = mode or reconstructor.modes[-1]
        self.name = f"{reconstructor.name} {self.mode}"

    def describe(self) -> dict[str, object]:
        """The system's own facts and the mode."""
        return {**self.reconstructor.describe(), "mode": self.mode}

    def disparity(
        self, pictures: Float[Tensor, "batch 3 height width"], names: Sequence[str]
    ) -> Float[Tensor, "batch height width"]:
        """Expected disparity of the canonical view.

        Raises:
            UserError: the system has none.
        """
        images = resize_maps(pictures, self.reconstructor.resolution)
        found = self.reconstructor.reconstruct(images, pictures, self.mode, names).disparity
        if found is None:
            raise UserError(f"{self.reconstructor.name}: has no depth; give another --model.")
        return found.cpu()


class FloorDepth:
    """Near at the bottom, far at the top: what most photographs have in common."""

    name = "floor"

    def describe(self) -> dict[str, object]:
        """Nothing to choose."""
        return {}

    def disparity(
        self, pictures: Float[Tensor, "batch 3 height width"], names: Sequence[str]
    ) -> Float[Tensor, "batch height width"]:
        """Rising evenly from 0 in the first row to 1 in the last."""
        height, width = pictures.shape[-2:]
        rows = torch.linspace(0, 1, height)
        return rows[None, :, None].expand(len(pictures), height, width)
