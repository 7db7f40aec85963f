"""How a kind of field becomes arrays, and gradients of arrays become those of its tensors."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


@runtime_checkable
class Adapter(Protocol):
    """A kind of field for the march.

    Arrays are named tuples for which `march.implements` has registered functions. Learned tensors
    go by the names of their gradients in ``gradients``.
    """

    gradients: ClassVar[type]
    """The named tuple of gradients; empty arrays where none is asked."""
    tables: ClassVar[tuple[str, ...]]
    """Names of those that hold something for every scene; the others belong to layers and have one
    sum for every lane."""
    cameras: ClassVar[bool]
    """Whether places of samples get gradients."""

    def refuses(self, field: Any) -> str | None:
        """Why this very field cannot be marched, as half a sentence; None if it can."""
        ...

    def tensors(self, field: Any) -> dict[str, Tensor]:
        """What the field has learned, by name."""
        ...

    def channels(self, field: Any) -> int:
        """Of the features."""
        ...

    def arrays(self, field: Any, tensors: Mapping[str, Tensor]) -> Any:
        """The field as a named tuple, made of these tensors."""
        ...

    def gradient(self, name: str, array: np.ndarray, field: Any, tensor: Tensor) -> Tensor:
        """The gradient of a learned tensor, from the array of that name."""
        ...


def flat(tensor: Tensor) -> np.ndarray:
    """A tensor's numbers in a row; bfloat16 as int16. No copy where they already are."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.int16)
    return tensor.reshape(-1).numpy()


def padded(tensor: Tensor, *sizes: int) -> Tensor:
    """The tensor in the corner of a larger one of zeros."""
    if tuple(tensor.shape) == sizes:
        return tensor.detach()
    larger = tensor.new_zeros(sizes)
    larger[tuple(slice(0, size) for size in tensor.shape)] = tensor.detach()
    return larger


def cropped(array: np.ndarray, sizes: tuple[int, ...], tensor: Tensor) -> Tensor:
    """The way back from `padded`, as a tensor of the given one's shape and precision."""
    values = torch.from_numpy(array).reshape(sizes)
    return values[tuple(slice(0, size) for size in tensor.shape)].to(tensor.dtype)


def multiple(number: int, of: int) -> int:
    """The smallest multiple that is not below."""
    return -(-number // of) * of
