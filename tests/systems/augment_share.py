"""The share of changed pictures after some steps, as a process: ``python augment_share.py OUT``."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from unflat.systems.gan.augment import PoseAugment
from unflat.training import process_rank

BATCH = 8


def share_after_steps(rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
    """All that is kept, after this process's share of six batches: one decision, and two steps.

    The first half of each batch alone would have it shrink.
    """
    augment = PoseAugment(speed=200.0)
    augment.probability.fill_(0.1)
    share = BATCH // world_size
    for step in range(6):
        logits = torch.ones(BATCH)
        logits[0] = -1.0
        augment.watch(logits[rank * share : (rank + 1) * share], 0.5)
        augment.after_step(step)
    return dict(augment.state_dict())


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    save_file(
        share_after_steps(*process_rank()),
        Path(sys.argv[1]) / f"{process_rank()[0]}.safetensors",
    )
    distributed.destroy_process_group()
