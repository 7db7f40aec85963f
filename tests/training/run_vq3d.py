"""VQ3D's tiny preset as a process of its own: ``python run_vq3d.py OUT QUANTIZER``."""

import dataclasses
import sys
from pathlib import Path

import torch

from unflat.systems.vq3d.config import tiny
from unflat.systems.vq3d.recipe import Vq3dRecipe
from unflat.training import Event, TrainConfig, process_rank, train

BATCH = 8


class Pictures:
    """Smooth random pictures; every third has no disparity."""

    def __init__(self, resolution: int, rank: int = 0, world_size: int = 1) -> None:
        self.resolution, self.rank, self.world_size = resolution, rank, world_size

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        coarse = torch.rand((BATCH, 4, 4, 4), generator=generator)
        fine = torch.nn.functional.interpolate(coarse, size=self.resolution, mode="bilinear")
        share = BATCH // self.world_size
        part = slice(self.rank * share, (self.rank + 1) * share)
        return {
            "image": fine[part, :3],
            "disparity": fine[part, 3:],
            "has_disparity": (torch.arange(BATCH) % 3 != 2)[part],
            "label": torch.zeros(BATCH, dtype=torch.int64)[part],
        }


def silent(event: Event) -> None:
    del event


def run(out: Path, steps: int = 3, resume: bool = False, quantizer: str | None = None) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = tiny()
    if quantizer is not None:
        config = dataclasses.replace(config, quantizer=quantizer)
    recipe = Vq3dRecipe(config)
    rank, world_size = process_rank()
    recipe.start(torch.cat([Pictures(config.resolution).batch(n)["image"] for n in range(8)]))
    settings = TrainConfig(
        steps=steps,
        batch_size=BATCH,
        warmup_steps=1,
        schedule="constant",
        log_every=1,
        sample_every=2,
        checkpoint_every=2,
        device="cpu",
        tensorboard=False,
    )
    batches = Pictures(config.resolution, rank, world_size)
    train(recipe, batches, settings, out, resume=resume, on_event=silent)


if __name__ == "__main__":
    run(Path(sys.argv[1]), quantizer=sys.argv[2] if len(sys.argv) > 2 else None)
