"""Training batches as a pure function of the seed and the step.

Nothing is remembered between calls: the batch of step 1000 is the same whether steps 0 to 999 were
asked for or not, so a run that resumes, and N processes that each take their part, see what one
uninterrupted process sees::

    source = BatchSource([scenes, photos], per_batch=[8, 4], seed=0)
    batch = source.batch(step)
"""

from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int
from torch import Tensor

from unflat.data.dataset import NO_LABEL, PictureDataset, to_batch
from unflat.data.sample import joint_names

_ORDER_STREAM, _CHANGE_STREAM = 1, 2  # keeps shuffling and augmentation independent of each other
_KEPT_ORDERS = 16


class BatchSource:
    """Batches that mix data sets in fixed numbers, shuffled without replacement within each epoch.

    The global batch interleaves its data sets evenly, so that equal consecutive parts have equal
    mixtures: with 8 scenes and 4 photos each of two processes gets 4 and 2.

    Args:
        datasets: one or more of equal resolution.
        per_batch: pictures of each data set in the global batch; or give `weights`.
        weights: shares of each data set, at least 0, rounded to whole pictures of `batch_size`;
            by size of the data sets unless given.
        batch_size: global, over all processes; needed unless `per_batch` is given.
        seed: of order and augmentation.
        rank: which part of the global batch this process takes.
        world_size: how many processes share it; must divide the batch size.
        flip: mirror half of the pictures left to right, disparity alike.
        jitter: largest relative change of brightness, contrast and saturation, 0 to 1.

    Windows of `resolution` are cut at random where a data set has a margin.
    """

    def __init__(
        self,
        datasets: Sequence[PictureDataset] | PictureDataset,
        *,
        per_batch: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        flip: bool = True,
        jitter: float = 0.0,
    ) -> None:
        self.datasets = [datasets] if isinstance(datasets, PictureDataset) else list(datasets)
        if len({dataset.resolution for dataset in self.datasets}) != 1:
            raise ValueError("the data sets must share one resolution")
        if per_batch is None:
            if batch_size is None:
                raise ValueError("give per_batch or batch_size")
            sizes = [float(len(dataset)) for dataset in self.datasets]
            per_batch = share_out(weights if weights is not None else sizes, batch_size)
        self.per_batch = list(per_batch)
        if len(self.per_batch) != len(self.datasets) or min(self.per_batch) < 0:
            raise ValueError(f"per_batch {self.per_batch} for {len(self.datasets)} data sets")
        self.batch_size = sum(self.per_batch)
        if batch_size is not None and batch_size != self.batch_size:
            raise ValueError(f"per_batch adds up to {self.batch_size}, not {batch_size}")
        if self.batch_size == 0 or self.batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(
                f"batch size {self.batch_size} cannot be shared by {world_size} processes"
            )
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.flip, self.jitter = flip, jitter
        self.resolution = self.datasets[0].resolution
        self.classes, self._labels = joint_labels(self.datasets)
        self._layout = _interleave(self.per_batch)
        self._orders: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def batch(self, step: int) -> dict[str, Tensor]:
        """This process's part of the global batch of a step."""
        share = self.batch_size // self.world_size
        part = slice(self.rank * share, (self.rank + 1) * share)
        draws = self._draws(step)
        drawn = {name: values[part] for name, values in draws.items()}
        resolution = self.resolution
        images = np.empty((share, 3, resolution, resolution), np.uint8)
        disparities = np.empty((share, resolution, resolution), np.uint8)
        has, labels = np.empty(share, bool), np.empty(share, np.int64)
        for number, dataset in enumerate(self.datasets):
            slots = np.flatnonzero(self._layout[part, 0] == number)
            if slots.size == 0:
                continue
            indices = self.indices(step, number)[self._layout[part][slots, 1]]
            pictures, maps = dataset.pixels(indices)
            for place, slot in enumerate(slots):
                window = _window(dataset, drawn["crop"][slot])
                images[slot] = pictures[place][:, *window]
                disparities[slot] = _stretch(maps[place][*window], dataset.side != resolution)
            has[slots] = dataset.has_disparity[indices]
            labels[slots] = self._labels[number][indices]
        if self.flip:
            mirrored = drawn["flip"] < 0.5
            images[mirrored] = images[mirrored][..., ::-1]
            disparities[mirrored] = disparities[mirrored][..., ::-1]
        batch = to_batch(images, disparities, has, labels)
        if self.jitter:
            batch["image"] = _jitter(batch["image"], drawn["color"], self.jitter)
        return batch

    def indices(self, step: int, number: int) -> Int[np.ndarray, " chosen"]:
        """Which pictures of a data set the global batch of a step holds.

        Every epoch is a fresh permutation; a batch that crosses its end goes on with the next.
        """
        size, count = len(self.datasets[number]), self.per_batch[number]
        positions = np.arange(step * count, (step + 1) * count)
        epochs, offsets = np.divmod(positions, size)
        return np.asarray(
            [
                self._order(number, int(epoch))[offset]
                for epoch, offset in zip(epochs, offsets, strict=True)
            ],
            dtype=np.int64,
        )

    def epoch(self, step: int) -> float:
        """How often the first data set has been gone through before this step."""
        return step * self.per_batch[0] / len(self.datasets[0])

    def _order(self, number: int, epoch: int) -> np.ndarray:
        key = (number, epoch)
        if key not in self._orders:
            generator = np.random.default_rng([self.seed, _ORDER_STREAM, number, epoch])
            self._orders[key] = generator.permutation(len(self.datasets[number]))
            if len(self._orders) > _KEPT_ORDERS:
                self._orders.popitem(last=False)
        return self._orders[key]

    def _draws(self, step: int) -> dict[str, np.ndarray]:
        # Drawn for the whole global batch, so that the number of processes changes nothing.
        generator = np.random.default_rng([self.seed, _CHANGE_STREAM, step])
        return {
            "flip": generator.random(self.batch_size),
            "crop": generator.random((self.batch_size, 2)),
            "color": generator.uniform(-1.0, 1.0, (self.batch_size, 3)),
        }


def share_out(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers adding up to `total`, as near to the weights as can be (largest remainder)."""
    if not weights or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"weights {list(weights)} must be at least 0 and not all 0")
    scale = total / sum(weights)
    exact = [weight * scale for weight in weights]
    shares = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares


def _interleave(per_batch: Sequence[int]) -> Int[np.ndarray, "batch 2"]:
    # Fractions, not floats: ties must fall the same way on every machine.
    slots = [
        (Fraction(2 * place + 1, 2 * count), number, place)
        for number, count in enumerate(per_batch)
        for place in range(count)
    ]
    return np.asarray([slot[1:] for slot in sorted(slots)], dtype=np.int64)


def joint_labels(
    datasets: Sequence[PictureDataset],
) -> tuple[list[str], list[Int[np.ndarray, " _"]]]:
    """Class names over several data sets, sorted, and the label of every picture of each."""
    keys = {key for dataset in datasets for key in dataset.class_keys if key is not None}
    names = joint_names(sorted(keys))
    classes = sorted(names.values())
    position = {name: index for index, name in enumerate(classes)}
    labels = [
        np.asarray([NO_LABEL if key is None else position[names[key]] for key in d.class_keys])
        for d in datasets
    ]
    return classes, labels


def _window(dataset: PictureDataset, draw: np.ndarray) -> tuple[slice, slice]:
    room = dataset.side - dataset.resolution
    top, left = (int(value * (room + 1)) for value in draw)
    return slice(top, top + dataset.resolution), slice(left, left + dataset.resolution)


def _stretch(values: np.ndarray, cropped: bool) -> np.ndarray:
    if not cropped or values.max() == values.min():
        return values
    low, high = int(values.min()), int(values.max())
    return np.rint((values.astype(np.float32) - low) * (255.0 / (high - low))).astype(np.uint8)


def _jitter(images: Tensor, draws: np.ndarray, amount: float) -> Tensor:
    factors = images.new_tensor(1.0 + amount * draws)[:, :, None, None, None]
    brightness, contrast, saturation = factors.unbind(1)
    images = images * brightness
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    images = middle + (images - middle) * contrast
    grey = images.mean(dim=1, keepdim=True)
    return (grey + (images - grey) * saturation).clamp(0.0, 1.0)
