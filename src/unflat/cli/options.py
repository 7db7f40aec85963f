"""Options that verbs share: one spelling and one meaning each."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from unflat.errors import UserError

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""On if named."""

Device = Literal["auto", "cpu", "cuda", "mps"]

PRIOR = "vq3d-prior"
"""The model that draws tokens where none is named."""

_ENDLESS = 10**6  # an upper bound that nobody needs to be told

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, kw_only=True)
class Speech:
    """How a verb speaks."""

    quiet: Switch = False
    """Say nothing but errors."""
    json: Switch = False
    """One JSON object per line on stdout, the last is the report; everything else on stderr."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Verbs whose work takes a while."""

    dry_run: Switch = False
    """Say what would run, how long and where to; write nothing."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Verbs that write."""

    out: Path | None = None
    """Where the result goes."""
    force: Switch = False
    """Replace an older result."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """Verbs that march rays."""

    backend: Literal["auto", "reference", "fused"] = "auto"
    """How rays are marched: plain torch (reference), compiled kernels (fused), or the second where
    they know the field (auto). The picture is the same."""


@dataclass(frozen=True, kw_only=True)
class Computed(Rendered):
    """Verbs that compute."""

    device: Device = "auto"
    """Where to compute; auto takes a CUDA GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class Modelled:
    """Verbs that need a model."""

    model: str = "vq3d-small"
    """A name from `unflat models list`, or the path of a model file."""
    offline: Switch = False
    """Use no network: a model that is not on this computer is an error."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Verbs that draw tokens from a prior."""

    autoencoder: str | None = None
    """The model that makes scenes of a prior's tokens; the one the prior names if not given."""
    steps: int = 32
    """Passes in which a picture's codes are drawn, for priors that draw several at once."""
    temperature: float = 1.0
    """Above 1 bolder, below 1 safer."""
    guidance_scale: float = 1.3
    """How strongly the class counts: 1 as learned, 0 not at all, more overdoes it."""
    top_k: int | None = None
    """Draw only from the so many likeliest codes."""
    top_p: float | None = None
    """Draw only from the fewest likeliest codes that together have this probability."""

    def require_sampling(self) -> None:
        """Refuse numbers out of their range.

        Raises:
            UserError: one is.
        """
        require_range(self.steps, 1, 10**6, "--steps", "passes")
        require_range(self.guidance_scale, 0, 100, "--guidance-scale", "(1 is as learned)")
        require_range(self.top_k, 1, 10**6, "--top-k", "codes")
        if not 0 < self.temperature <= 100:
            raise UserError(
                f"--temperature {self.temperature:g}: must be above 0 and at most 100 (1 is as "
                "learned)."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"--top-p {self.top_p:g}: must be above 0 and at most 1.")


@dataclass(frozen=True, kw_only=True)
class Completing:
    """Verbs that can complete scenes of photos."""

    complete: Switch = False
    """Draw from a prior what the photo does not show: behind things, and beside the picture."""
    prior: str | None = None
    """For --complete: a name from `unflat models list`, or the path of a model file; vq3d-prior if
    not given."""

    def completed_by(self) -> str | None:
        """The prior's name or path; None without --complete.

        Raises:
            UserError: a prior is named for nothing.
        """
        if self.prior is not None and not self.complete:
            raise UserError("--prior: draws for --complete, which is not given; add it.")
        return (self.prior or PRIOR) if self.complete else None


def seconds_of(text: str, option: str) -> float:
    """Seconds in a person's duration: "90", "90s", "30m", "2h", "1h30m".

    Args:
        text: what was given.
        option: its name, for the message.

    Raises:
        UserError: it is no duration above 0.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    whole = "".join(f"{number}{unit}" for number, unit in parts)
    if whole == re.sub(r"\s+", "", text.lower()) and parts:
        units = [_SECONDS.get(unit or "s") for _, unit in parts]
        if all(unit is not None for unit in units):
            total = sum(float(n) * unit for (n, _), unit in zip(parts, units, strict=True) if unit)
            if total > 0:
                return total
    raise UserError(f"{option} {text}: is no duration; write it as 90s, 30m or 2h.")


def names_of(text: str, option: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names in a list with commas, each once, in the order given.

    Args:
        text: what was given, as in "mp4,glb".
        option: its name, for the message.
        known: what may be named.

    Raises:
        UserError: a name is not known.
    """
    names = [name.strip().lower().removeprefix(".") for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(
                f"{option} {name or text}: is not known; choose from {','.join(known)}."
            )
    return tuple(dict.fromkeys(names))


def formats_of(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """What ``--format`` means: as `names_of`, where orbit is the usual video and mesh is glb.

    Args:
        text: what was given, as in "orbit,mesh".
        known: formats that may be named.

    Raises:
        UserError: a name is not known.
    """
    from unflat.result import resolve_formats

    words = (("orbit", "mp4"), ("mesh", "glb"))
    also = tuple(word for word, meant in words if meant in known)
    return resolve_formats(names_of(text, "--format", (*known, *also)))


def require_range(
    value: float | int | None, lowest: float | int, highest: float | int, option: str, unit: str
) -> None:
    """Refuse a number outside its range; None passes.

    Raises:
        UserError: it is below ``lowest`` or above ``highest``.
    """
    if value is not None and not lowest <= value <= highest:
        if highest >= _ENDLESS:
            raise UserError(
                f"{option} {value:g}: must be at least {lowest:g} {unit}".rstrip() + "."
            )
        raise UserError(f"{option} {value:g}: must be from {lowest:g} to {highest:g} {unit}.")
