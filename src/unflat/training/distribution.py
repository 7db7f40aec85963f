"""Devices and processes: what Accelerate owns, and what the loop asks of all processes."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from unflat.errors import UserError, require_extra
from unflat.training.config import TrainConfig
from unflat.training.recipe import Recipe


def process_rank() -> tuple[int, int]:
    """This process's rank and the number of processes, as ``torchrun`` sets them; else 0, 1.

    For whoever builds the batch source, before the loop begins.
    """
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def make_accelerator(config: TrainConfig) -> Any:
    """An ``accelerate.Accelerator`` as the config wants it.

    Accelerate keeps one state for a whole process; what an earlier run left there is dropped.

    Raises:
        UserError: accelerate is not installed, or the device is not there.
    """
    accelerate = require_extra("accelerate", "train", "training")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device was found; use --device cpu.")
    if config.device == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: no Apple GPU was found; use --device cpu.")
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    if process_rank()[1] > 1:
        # says that no parameter was unused, which is what one hopes for
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    ddp = accelerate.DistributedDataParallelKwargs(
        broadcast_buffers=False, find_unused_parameters=True
    )
    return accelerate.Accelerator(
        cpu=config.device == "cpu" or not has_gpu,
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        gradient_accumulation_steps=config.accumulate,
        kwargs_handlers=[ddp],
    )


class StepModule(nn.Module):
    """A recipe's step as a module's forward, which is what Accelerate prepares."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.networks = recipe.networks
        self._step: Callable[..., dict[str, Tensor]] = recipe.step

    def forward(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The recipe's terms; only ``loss`` keeps its graph."""
        terms = self._step(batch, progress, generator)
        return {name: v if name == "loss" else v.detach() for name, v in terms.items()}


def largest_over_processes(values: list[float], device: torch.device) -> list[float]:
    """The largest of each value over all processes; with one process, the values."""
    if not _is_shared():
        return values
    tensor = torch.tensor(values, device=device)
    distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX)
    return tensor.tolist()


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes; with one process, the tensor.

    For figures and for what ``Recipe.after_step`` decides by: without gradient.
    """
    if not _is_shared():
        return values
    values = values.detach().clone()
    distributed.all_reduce(values)
    return values / distributed.get_world_size()


def gather_over_processes(values: Any) -> list[Any]:
    """Plain values of each process, in the order of their ranks."""
    if not _is_shared():
        return [values]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, values)
    return gathered


def refuse_drift(networks: nn.Module, step: int) -> None:
    """Pass if all processes hold the same weights.

    Raises:
        RuntimeError: they do not: the recipe changed weights on each process by itself.
    """
    if not _is_shared():
        return
    state = networks.state_dict()
    sums = torch.stack([value.float().abs().sum() for value in state.values()])
    low, high = sums.clone(), sums.clone()
    distributed.all_reduce(low, op=distributed.ReduceOp.MIN)
    distributed.all_reduce(high, op=distributed.ReduceOp.MAX)
    drifted = [name for name, differs in zip(state, low != high, strict=True) if differs]
    if drifted:
        raise RuntimeError(
            f"the processes hold different weights after step {step}: {', '.join(drifted)}; "
            "Recipe.step and after_step must change networks equally on every process"
        )


def _is_shared() -> bool:
    return distributed.is_available() and distributed.is_initialized()
