import pytest

from unflat.cli.options import names_of, require_range, seconds_of
from unflat.errors import UserError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text, "--max-time") == seconds


@pytest.mark.parametrize("text", ["", "soon", "2 weeks", "-3h", "0s", "2h soon"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UserError, match=r"^--max-time .*: is no duration; write it as 90s"):
        seconds_of(text, "--max-time")


def test_names_come_once_in_order_and_may_have_dots() -> None:
    assert names_of("glb, .MP4,glb", "--format", ("mp4", "glb")) == ("glb", "mp4")


@pytest.mark.parametrize("text", ["gbl", "", "glb,,mp4"])
def test_unknown_names_are_told_with_the_known(text: str) -> None:
    with pytest.raises(UserError, match=r"^--format .*: is not known; choose from mp4,glb\.$"):
        names_of(text, "--format", ("mp4", "glb"))


def test_ranges_pass_none_and_name_their_limits() -> None:
    require_range(None, 1, 2, "--size", "pixels")
    require_range(2, 1, 2, "--size", "pixels")
    with pytest.raises(UserError, match=r"^--size 3: must be from 1 to 2 pixels\.$"):
        require_range(3, 1, 2, "--size", "pixels")
