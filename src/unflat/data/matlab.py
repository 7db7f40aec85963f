"""Structures of MATLAB files, read with SciPy."""

import io
import zlib
from typing import Any

from unflat.data.pictures import DECODE_ERRORS
from unflat.errors import UserError


def read_structs(content: bytes, key: str, label: str) -> list[dict[str, Any]]:
    """The structures of an array of them, each a dictionary by field.

    Args:
        content: of a .mat file of version 7 or older.
        key: name of the array.
        label: what messages call the file.

    Raises:
        UserError: it is cut short or damaged, or has no such array of structures.
    """
    from scipy.io import loadmat  # comes with scikit-image
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(io.BytesIO(content), simplify_cells=True, variable_names=[key])
    except (*DECODE_ERRORS, MatReadError, zlib.error) as error:
        raise UserError(f"{label}: is cut short or damaged; download it again.") from error
    values = found.get(key)
    rows = [values] if isinstance(values, dict) else list(values if values is not None else [])
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{label}: holds no structures called {key}; download it again.")
    return rows
