"""A codebook after one restart, as a process of its own: ``python restart_codes.py OUT``."""

import dataclasses
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from unflat.nn import VectorQuantizer
from unflat.systems.vq3d import Vq3dRecipe
from unflat.systems.vq3d.config import tiny
from unflat.training import process_rank

BATCH = 4


def codebook_after_restart(rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
    """The codebook after this process's share of a batch and a restart of what was not used."""
    torch.manual_seed(0)
    recipe = Vq3dRecipe(dataclasses.replace(tiny(), quantizer="vq", codes=64, code_dim=8))
    quantizer = recipe.model.quantizer
    assert isinstance(quantizer, VectorQuantizer)
    quantizer.recent_use.fill_(0.02)  # one use among the 64 tokens brings it to 0.04
    images = torch.rand(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    share = BATCH // world_size
    recipe.model.encode(images[rank * share : (rank + 1) * share])
    restarted = recipe.after_step(0)["restarted_codes"]
    return {
        "table": quantizer.table.detach(),
        "use": quantizer.recent_use,
        "restarted": torch.tensor(restarted),
    }


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    save_file(
        codebook_after_restart(*process_rank()),
        Path(sys.argv[1]) / f"{process_rank()[0]}.safetensors",
    )
    distributed.destroy_process_group()
