"""A training step of VQ3D stage 1 on made-up pictures: what is timed whole and in parts."""

import torch
from torch import Tensor
from torch.nn import functional

from unflat.systems.vq3d import PRESETS, Vq3dRecipe

BATCH = 16


def training_batch(side: int, count: int = BATCH) -> dict[str, Tensor]:
    """Pictures with a smooth disparity, as the data set gives them."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(count, 4, 8, 8, generator=generator)
    smooth = functional.interpolate(noise, (side, side), mode="bicubic").clamp(0, 1)
    return {
        "image": smooth[:, :3].contiguous(),
        "disparity": smooth[:, 3:].contiguous(),
        "has_disparity": torch.ones(count, dtype=torch.bool),
    }


class TrainingStep:
    """The configuration `small`, with its optimizer."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.recipe = Vq3dRecipe(PRESETS["small"]())
        self.model = self.recipe.model
        self.batch = training_batch(self.recipe.config.resolution)
        self.optimizer = torch.optim.AdamW(self.recipe.parameter_groups(), lr=1e-4)

    def generator(self) -> torch.Generator:
        """The same for every call."""
        return torch.Generator().manual_seed(0)

    def update(self) -> None:
        """Clipping and the optimizer's own step."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def whole(self) -> None:
        """Terms, gradients, update."""
        self.optimizer.zero_grad()
        self.recipe.step(self.batch, 0.5, self.generator())["loss"].backward()
        self.update()
