"""What a file that torch has saved holds, without running code that may be in it."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unflat.errors import UserError

# Training scripts keep scores and random states beside the weights, as numpy's plain values. A
# pickle names the functions that build them, under an older name as well.
_NUMPY_PLACES = ("numpy.core.multiarray", "numpy._core.multiarray")
# What torch's reader meets in bytes that are no pickle at all depends on the bytes.
_DAMAGE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError),
    *(LookupError, TypeError, AttributeError),
)
_NUMPY_VALUES = ("float64", "float32", "float16", "int64", "int32", "uint32", "uint8", "bool")


def read_torch_file(path: Path, expected: str) -> Any:
    """The content: tensors, numpy's values, and plain containers of them.

    Args:
        path: of a file that exists.
        expected: what to give instead, for messages.

    Raises:
        UserError: it is damaged, or holds code or objects beyond those.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in name for name in archive.namelist()):
                raise UserError(f"{path}: holds code (TorchScript), which is not run; {expected}.")
    try:
        with torch.serialization.safe_globals(_numpy_parts()):
            return torch.load(  # noqa: TID251 - what people have is .pth; no code in it is run
                path, map_location="cpu", weights_only=True
            )
    except _DAMAGE as error:
        raise UserError(
            f"{path}: is not a whole file of plain weights; download it again, or save it as "
            "safetensors."
        ) from error


def _numpy_parts() -> list[Any]:
    """What plain numbers and arrays of numbers are made of."""
    made = {
        "scalar": np.float64(0).__reduce__()[0],
        "_reconstruct": np.zeros(1).__reduce__()[0],
    }
    named = [(part, f"{place}.{name}") for place in _NUMPY_PLACES for name, part in made.items()]
    return [*named, np.ndarray, np.dtype, *(type(np.dtype(name)) for name in _NUMPY_VALUES)]
