"""How a run is run: everything the loop needs to know that is not the recipe's."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    steps: int = 20_000
    """Optimizer steps of the whole run; a run may end earlier, see max_seconds."""
    batch_size: int = 32
    """Samples of one optimizer step, over all processes and accumulated parts together."""
    lr: float = 5e-4
    """Peak learning rate of AdamW; a parameter group multiplies it by its ``lr_scale``."""
    warmup_steps: int = 200
    """Steps in which the learning rate grows linearly from nearly 0."""
    final_lr_fraction: float = 0.01
    """Share of the peak learning rate that is left at the end of a cosine schedule."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay of the first and second moment."""
    weight_decay: float = 0.01
    """AdamW's weight decay, unless a parameter group has its own ``weight_decay``."""
    clip_norm: float = 1.0
    """Largest gradient norm; longer gradients are shortened to it. 0 leaves them as they are."""
    accumulate: int = 1
    """Parts into which each process cuts its share of a batch, to save memory."""
    ema_decay: float = 0.999
    """Decay of the averaged weights, warmed up as (1 + step) / (10 + step); 0 takes no average."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast; weights, averages and the optimizer stay float32."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    threads: int | None = None
    """CPU threads of torch. None measures 1 against all once, at the start, and keeps the faster;
    a resumed run keeps the number it began with, since sums round differently with another."""
    seed: int = 0
    """Start of all random numbers of the run."""
    log_every: int = 50
    """Steps between lines in metrics.jsonl; a line holds means over these steps."""
    sample_every: int = 1000
    """Steps between sample sheets; 0 writes none."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; 0 writes one at the end only."""
    keep: int = 3
    """Newest checkpoints that stay; older ones are deleted."""
    max_seconds: float | None = None
    """Time after which the run ends, its learning rate decayed in time. None: no limit."""
    guard_every: int = 200
    """Steps between copies in memory of the last good state, to which a loss that is not finite
    sends the run back; costs the memory of weights, average and optimizer once more."""
    max_failures: int = 10
    """Losses that are not finite before the run gives up; counted anew after guard_every good
    steps in a row."""
    tensorboard: bool = True
    """Also write TensorBoard files, if tensorboard is installed."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "keep", "guard_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"ema_decay must be in [0, 1), not {self.ema_decay}")
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise ValueError(f"max_seconds must be positive or None, not {self.max_seconds}")

    def to_json(self) -> dict[str, Any]:
        """The config as JSON types."""
        return {**asdict(self), "betas": list(self.betas)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainConfig":
        """The config that ``to_json`` wrote; names of another version are ignored."""
        known = {field.name for field in fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        if "betas" in kept:
            kept["betas"] = tuple(kept["betas"])
        return cls(**kept)
