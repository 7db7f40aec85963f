"""Some steps at the paper's width as a process of its own: ``python run_paper_width.py OUT``."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional

from unflat.systems.vq3d import Vq3dRecipe
from unflat.systems.vq3d.paper import RUNS
from unflat.training import Event, process_rank, train

STEPS = 2


class Pictures:
    """Smooth random pictures with disparity, one for each process."""

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        rank, _ = process_rank()
        generator = torch.Generator().manual_seed(2 * step + rank)
        fine = functional.interpolate(
            torch.rand((1, 4, 8, 8), generator=generator), size=256, mode="bilinear"
        )
        image, disparity = fine.split([3, 1], dim=1)
        has, label = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64)
        return {"image": image, "disparity": disparity, "has_disparity": has, "label": label}


def silent(event: Event) -> None:
    del event


def main(out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = RUNS["paper-imagenet256"]()
    recipe = Vq3dRecipe(
        replace(run.config, encoder_depth=2, decoder_depth=2),
        replace(
            run.loss,
            rows=8,
            columns=8,
            novel_rays=32,
            novel_samples=8,
            crop=16,
            critic_start=0.0,
            novel_critic_start=0.0,
            r1_every=1,
        ),
    )
    settings = replace(
        run.train,
        steps=STEPS,
        batch_size=2,
        log_every=1,
        sample_every=0,
        checkpoint_every=0,
        device="cpu",
        tensorboard=False,
    )
    train(recipe, Pictures(), settings, out, on_event=silent)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
