"""Angles and poses as a person writes them: lists, ranges, and files with a place."""

import math
import re

from unflat.errors import UserError

_MOST = 10_000
_ROUNDING = 1e-9


def angles_of(text: str, option: str, lowest: float, highest: float) -> list[float]:
    """Degrees of "30,60,90" or "0:360:30"; the end of a range is left out, as in Python.

    Args:
        text: numbers and ranges with commas.
        option: its name, for the message.
        lowest: least angle allowed, degrees.
        highest: largest angle allowed, degrees.

    Raises:
        UserError: something is no number or range, or an angle is out of bounds.
    """
    found: list[float] = []
    for part in text.split(","):
        values = [_number(word, text, option) for word in part.split(":")]
        if len(values) == 1:
            found += values
        elif len(values) == 3 and values[2] and (values[1] - values[0]) * values[2] > 0:
            start, end, step = values
            count = math.ceil((end - start) / step - _ROUNDING)
            if count > _MOST:
                raise UserError(f"{option} {text}: is {count} angles; {_MOST} is the most.")
            found += [start + step * number for number in range(count)]
        else:
            raise UserError(
                f"{option} {text}: {part} is no angle and no range; write 30,60,90 or 0:360:30."
            )
    for angle in found:
        if not lowest <= angle <= highest:
            raise UserError(
                f"{option} {text}: {angle:g} is out of range; angles are from {lowest:g} to "
                f"{highest:g} degrees."
            )
    return list(dict.fromkeys(round(angle, 6) for angle in found))


def placed_file(text: str, option: str) -> tuple[str, float, float]:
    """File, azimuth and elevation of "side.png@90,0".

    Raises:
        UserError: it is not written like that, or an angle is out of bounds.
    """
    found = re.fullmatch(r"(.+)@([^,@]+),([^,@]+)", text)
    if found is None:
        raise UserError(
            f"{option} {text}: tells no place; write FILE@AZIMUTH,ELEVATION, as in side.png@90,0."
        )
    azimuth = angles_of(found[2], f"{option} {text}, azimuth", -360.0, 360.0)
    elevation = angles_of(found[3], f"{option} {text}, elevation", -90.0, 90.0)
    if len(azimuth) != 1 or len(elevation) != 1:
        raise UserError(f"{option} {text}: tells several places; give one azimuth and elevation.")
    return found[1], azimuth[0], elevation[0]


def _number(word: str, text: str, option: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"{option} {text}: {word or 'nothing'} is no number; write 30,60,90 or 0:360:30."
        )
    return value
