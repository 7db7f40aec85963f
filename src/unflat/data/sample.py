"""What a data set yields before decoding, and what it says of pictures it could not use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture, still as file bytes."""

    name: str
    """Where it came from, for messages: ``photos-train.tar:000017`` or a path."""
    image: bytes
    """The picture file."""
    disparity: bytes | None = None
    """The disparity file beside the picture (PNG or NPZ), if there is one."""
    class_name: str | None = None
    """Name of the class, if the layout tells one."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom of the object in the upright picture's pixels, if the layout tells
    it; the picture is then cut around it."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A picture that was left out, and why."""

    name: str
    """Where it came from, as in `Sample.name`."""
    reason: str
    """Half a sentence without the name, as in ``the file is empty``."""


@runtime_checkable
class PictureSource(Protocol):
    """A folder or a tar: a fixed order of samples, read one by one."""

    prefix: str
    """Put before class names that another source also uses: ``scene`` in ``scene/car``."""
    rejects: list[Reject]
    """What was already found broken while listing."""

    def __len__(self) -> int:
        """How many samples were listed."""
        ...

    def read(self, index: int) -> Sample:
        """The files of one sample; raises `unflat.errors.UserError` if they cannot be read."""
        ...


def reason_of(message: str, name: str) -> str:
    """An error sentence without its leading name and full stop, for a `Reject`."""
    return message.removeprefix(f"{name}: ").rstrip(".")


def prefix_of(stem: str) -> str:
    """``scene`` for ``scenes-train``: the first word of a file's stem, without a plural s."""
    word = stem.split("-")[0]
    return word.removesuffix("s") or stem


def joint_names(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Label names for (prefix, class name) pairs: prefixed only where two prefixes share a name."""
    owners: dict[str, set[str]] = {}
    for prefix, name in pairs:
        owners.setdefault(name, set()).add(prefix)
    return {
        (prefix, name): f"{prefix}/{name}" if len(owners[name]) > 1 else name
        for prefix, name in pairs
    }
