"""Random numbers that depend on the step alone: not on restarts, processes or accumulation.

``Recipe.step`` receives one generator, in the same state on every process and for every
accumulated part of a batch. Numbers that the whole batch shares are drawn from it directly;
numbers of each sample are drawn for the global batch and cut to the samples at hand:

    jitter = rand_per_sample(batch, (rays, samples), generator)

Draws of another length on another process (from a rank, a clock, the size of the local batch)
would make two processes differ from one.
"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor


def step_seed(seed: int, step: int, stream: str = "") -> int:
    """A 63-bit seed that is unrelated for each run seed, step and stream."""
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def step_generator(
    seed: int, step: int, device: torch.device | str = "cpu", stream: str = ""
) -> torch.Generator:
    """A generator in the state that belongs to a step."""
    return torch.Generator(device=device).manual_seed(step_seed(seed, step, stream))


def rand_per_sample(
    batch: dict[str, Tensor], shape: tuple[int, ...], generator: torch.Generator
) -> Float[Tensor, "samples ..."]:
    """Uniform numbers in [0, 1) for each sample of the batch.

    Args:
        batch: as ``Recipe.step`` received it; without the loop's ``position`` and
            ``batch_size`` (a recipe called by hand) it counts as the global batch.
        shape: of one sample's numbers.
        generator: as ``Recipe.step`` received it.
    """
    total, position = _position(batch)
    numbers = torch.rand((total, *shape), generator=generator, device=generator.device)
    return numbers if position is None else numbers[position.to(numbers.device)]


def randn_per_sample(
    batch: dict[str, Tensor], shape: tuple[int, ...], generator: torch.Generator
) -> Float[Tensor, "samples ..."]:
    """Normal numbers for each sample of the batch; see ``rand_per_sample``."""
    total, position = _position(batch)
    numbers = torch.randn((total, *shape), generator=generator, device=generator.device)
    return numbers if position is None else numbers[position.to(numbers.device)]


def local_size(batch: dict[str, Tensor]) -> int:
    """Samples in a batch: the length of its first tensor that has an axis."""
    for value in batch.values():
        if value.ndim:
            return len(value)
    raise ValueError(f"the batch has no tensor with a batch axis; it holds {sorted(batch)}")


def with_position(batch: dict[str, Tensor], rank: int, world_size: int) -> dict[str, Tensor]:
    """The batch, with where its samples stand in the global batch.

    ``position``: int64 [b]; ``batch_size``: int64, samples of the global batch, on the CPU.
    """
    size = local_size(batch)
    position = torch.arange(rank * size, (rank + 1) * size)
    total = torch.tensor(size * world_size)
    return {"position": position, **batch, "batch_size": total}


def split_batch(batch: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    """The batch in equal consecutive parts.

    Raises:
        ValueError: its samples can not be shared equally.
    """
    if parts == 1:
        return [batch]
    size = local_size(batch)
    if size % parts:
        raise ValueError(f"a batch of {size} samples can not be cut into {parts} equal parts")
    part = size // parts
    return [
        {
            name: value[i * part : (i + 1) * part] if value.ndim else value
            for name, value in batch.items()
        }
        for i in range(parts)
    ]


def first_samples(batch: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The first samples of a batch, at most ``count``."""
    return {name: value[:count] if value.ndim else value for name, value in batch.items()}


def _position(batch: dict[str, Tensor]) -> tuple[int, Tensor | None]:
    if "position" in batch and "batch_size" in batch:
        return int(batch["batch_size"]), batch["position"]
    return local_size(batch), None
