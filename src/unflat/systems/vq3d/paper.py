"""Whole runs at the paper's size, and what they cost.

The paper (arXiv 2302.06833) leaves much open; where it is silent these follow ViT-VQGAN (arXiv
2110.04627), whose stage 1 it builds on: batch 256, 500 k steps, Adam with (0.9, 0.99), a peak of
1e-4 after 50 k steps, cosine decay, weight decay 1e-4.

    cost(RUNS["paper-imagenet256"]()).gpu_hours      # a lower bound
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unflat.systems.vq3d.adversary import Judge
from unflat.systems.vq3d.config import PRESETS, Config
from unflat.systems.vq3d.loss_config import LOSSES, LossConfig
from unflat.systems.vq3d.recipe import Vq3dRecipe
from unflat.training.config import TrainConfig

GPU_SPEED = 400e12
"""Operations per second that one H100 keeps up in bfloat16 matrix products: 40 % of its peak."""

_STEP = 3  # forward, and twice as much backward: by inputs and by weights
_ROUND = 7  # of a critic: real and made forward, both backward twice, made once more by inputs


@dataclass(frozen=True, kw_only=True)
class PaperRun:
    """Everything that a run is made of, but for its pictures."""

    config: Config
    """The model."""
    loss: LossConfig
    """What is minimised."""
    train: TrainConfig
    """How long, how fast."""
    pictures: int
    """In the training set."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run needs at least."""

    parameters: int
    """Of the model."""
    critic_parameters: int
    """Of both critics."""
    flop_per_picture: float
    """Of a training step: matrix products and convolutions, two operations for each weight met.
    Lookups in planes, and moving numbers, come on top."""
    flop: float
    """Of the whole run."""
    epochs: float
    """How often every picture is seen."""
    state_gib: float
    """Weights, their average, gradients and AdamW's moments in float32."""

    @property
    def gpu_hours(self) -> float:
        """H100-hours if nothing but these operations took time; expect two or three times that."""
        return self.flop / GPU_SPEED / 3600


def imagenet256() -> PaperRun:
    """1.28 million pictures of 1000 classes at 256 px, 100 times each."""
    return PaperRun(
        config=PRESETS["paper-imagenet256"](),
        loss=LOSSES["paper"],
        train=TrainConfig(
            steps=500_000,
            batch_size=256,
            lr=1e-4,
            warmup_steps=50_000,
            weight_decay=1e-4,
            ema_decay=0.9999,
            precision="bf16",
            checkpoint_every=5_000,
            sample_every=5_000,
        ),
        pictures=1_281_167,
    )


def compcars() -> PaperRun:
    """136,726 pictures of whole cars at 256 px; a tenth of the pictures, a fifth of the steps."""
    run = imagenet256()
    schedule = replace(run.train, steps=100_000, warmup_steps=10_000)
    return replace(run, train=schedule, pictures=136_726)


RUNS: dict[str, Callable[[], PaperRun]] = {
    "paper-imagenet256": imagenet256,
    "paper-compcars": compcars,
}
"""By the name of the preset."""


@torch.no_grad()
def cost(run: PaperRun) -> Cost:
    """Counted on the meta device: nothing is computed, no memory is taken."""
    config, loss = run.config, run.loss
    with torch.device("meta"):
        recipe = Vq3dRecipe(config, loss, nn.Identity())
        recipe.networks.eval()
        model = recipe.model
        image = torch.zeros(1, 3, config.resolution, config.resolution)
        with FlopCounterMode(display=False) as network:
            field = model.field(model.decode(model.encode(image).quantized.tokens))
        with FlopCounterMode(display=False) as points:
            field.at(torch.zeros(1, 1024, 3))
        critics = 0
        assert recipe.windows is not None
        for judge in recipe.windows.judges.values():
            assert isinstance(judge, Judge)
            channels = judge.critic.enter.weight.shape[1]
            with FlopCounterMode(display=False) as judging:
                judge.critic(torch.zeros(1, channels, loss.crop, loss.crop))
            critics += judging.get_total_flops()
    canonical = (loss.rows * loss.columns + loss.crop**2) * config.samples
    novel = (loss.novel_rays + loss.crop**2) * loss.novel_samples
    marched = points.get_total_flops() / 1024 * (canonical + novel)
    each = _STEP * (network.get_total_flops() + marched) + _ROUND * critics
    parameters = sum(weight.numel() for weight in model.parameters())
    both = sum(weight.numel() for weight in recipe.networks.parameters())
    seen = run.train.steps * run.train.batch_size
    return Cost(
        parameters=parameters,
        critic_parameters=both - parameters,
        flop_per_picture=each,
        flop=each * seen,
        epochs=seen / run.pictures,
        state_gib=5 * 4 * both / 2**30,
    )
