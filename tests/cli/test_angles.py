"""Angles as a person writes them."""

import pytest

from unflat.cli.angles import angles_of, placed_file
from unflat.errors import UserError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("30,60,90", [30, 60, 90]),
        ("0:360:90", [0, 90, 180, 270]),
        ("-10:11:10", [-10, 0, 10]),
        ("90:0:-45", [90, 45]),
        ("0:0.3:0.1", [0, 0.1, 0.2]),
        ("5,0:20:10,5", [5, 0, 10]),
        (" 7.5 ", [7.5]),
    ],
)
def test_lists_and_ranges(text, found):
    assert angles_of(text, "--azimuth-deg", -360.0, 360.0) == pytest.approx(found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing is no number"),
        ("a", "a is no number"),
        ("nan", "nan is no number"),
        ("0:90", "no angle and no range"),
        ("0:90:-10", "no angle and no range"),
        ("0:90:0", "no angle and no range"),
        ("0:360:0.01", "36000 angles"),
        ("400", "400 is out of range"),
    ],
)
def test_what_is_no_angle_gets_a_sentence(text, says):
    with pytest.raises(UserError, match=says) as caught:
        angles_of(text, "--azimuth-deg", -360.0, 360.0)
    assert str(caught.value).startswith("--azimuth-deg")


def test_a_file_with_a_place():
    assert placed_file("a@b.png@90,-10", "--also") == ("a@b.png", 90, -10)
    for text in ("side.png", "side.png@90", "side.png@0:90:30,0", "side.png@90,95"):
        with pytest.raises(UserError, match="--also"):
            placed_file(text, "--also")
