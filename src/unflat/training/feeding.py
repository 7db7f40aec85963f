"""From the batch source to the device, the next batch made ready while this one is computed."""

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from unflat.training.randomness import with_position
from unflat.training.recipe import BatchSource


class Feeder:
    """Batches on a device.

    Beside a GPU one thread reads one batch ahead; on a CPU, which has better to do, none does.
    The source is never asked by two threads at once.
    """

    def __init__(
        self, source: BatchSource, rank: int, world_size: int, device: torch.device
    ) -> None:
        self._source, self._rank, self._world_size = source, rank, world_size
        self._device = device
        self._pool = None if device.type == "cpu" else ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[dict[str, Tensor]]] | None = None

    def batch(self, step: int, *, ahead: bool = True) -> dict[str, Tensor]:
        """This process's share of a step's batch, ``batch_size`` on the CPU.

        Args:
            step: whose batch.
            ahead: the batch of the next step will be wanted next.
        """
        if self._pool is None:
            return self._moved(self._read(step))
        known = self._ahead
        future = known[1] if known and known[0] == step else self._pool.submit(self._read, step)
        if ahead:
            self._ahead = (step + 1, self._pool.submit(self._read, step + 1))
        return self._moved(future.result())

    def close(self) -> None:
        """End the reading thread."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _read(self, step: int) -> dict[str, Tensor]:
        batch = with_position(self._source.batch(step), self._rank, self._world_size)
        if self._device.type == "cuda":
            batch = {name: value.pin_memory() for name, value in batch.items()}
        return batch

    def _moved(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: value if name == "batch_size" else value.to(self._device, non_blocking=True)
            for name, value in batch.items()
        }
