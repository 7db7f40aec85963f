"""Masks as COCO's tools store them: lengths of runs, column after column.

``{"size": [height, width], "counts": ...}``; counts are numbers, or their string: lengths of runs
of 0 and of 1 in turn, beginning with 0, down the columns. In the string each number is what it
exceeds the one two before by (from the fourth on), five bits a character, low bits first:
character - 48 holds the bits, 32 says that more follow, and bit 16 of the last is the sign.

    run_length_mask({"size": [2, 3], "counts": [1, 2, 3]})
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from unflat.data.pictures import MAX_PIXELS
from unflat.errors import UserError

_BITS, _MORE, _SIGN = 5, 32, 16
_FIRST, _LAST = 48, 111  # characters of the string
_LONGEST = 7  # characters of one number: 35 bits


def run_length_mask(stored: Any) -> Bool[np.ndarray, "height width"]:
    """A mask from its runs.

    Args:
        stored: as in the module's text.

    Raises:
        UserError: it is no such dictionary, or its runs do not fill its size; the sentence does not
            name the mask.
    """
    if not isinstance(stored, dict) or "size" not in stored or "counts" not in stored:
        raise UserError("its mask is no run lengths with size and counts")
    try:
        height, width = (int(number) for number in stored["size"])
        counts = _numbers(stored["counts"])
    except (TypeError, ValueError) as error:
        raise UserError(f"its mask's run lengths cannot be read ({error})") from error
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise UserError(f"its mask's size is {width}x{height}")
    if any(count < 0 for count in counts) or sum(counts) != height * width:
        raise UserError(f"its mask's runs do not fill {width}x{height} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _numbers(counts: str | bytes | Sequence[int]) -> list[int]:
    if isinstance(counts, str):
        counts = counts.encode("ascii")
    if not isinstance(counts, bytes):
        return [int(count) for count in counts]
    numbers: list[int] = []
    value = place = 0
    for character in counts:
        if not _FIRST <= character <= _LAST or place == _LONGEST:
            raise ValueError(f"character {character} has no place in them")
        bits = character - _FIRST
        value |= (bits & (_MORE - 1)) << (_BITS * place)
        place += 1
        if not bits & _MORE:
            if bits & _SIGN:
                value -= 1 << (_BITS * place)
            numbers.append(value + numbers[-2] if len(numbers) > 2 else value)
            value = place = 0
    if place:
        raise ValueError("they are cut short")
    return numbers
