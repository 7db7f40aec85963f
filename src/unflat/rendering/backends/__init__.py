"""Ways to march rays through fields that give the same picture: plain torch, and fused kernels.

Which one runs is chosen by the kind of field and where the rays are; `use` and the environment
variable ``UNFLAT_BACKEND`` force one:

    with backends.use("reference"):
        picture = render(field, camera, 64, 64, options)
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.fields.distance import PaletteField
from unflat.fields.field import Field, FieldOutput
from unflat.rendering.backends.check import disagreement
from unflat.rendering.backends.contract import Backend, Marched, Marching, Rays
from unflat.rendering.backends.palette import Mixing
from unflat.rendering.backends.reference import Reference, interval_lengths

Choice = Literal["auto", "reference", "fused"]
"""auto: fused where a fused backend knows the field and compiling pays, else the reference. fused:
insist on it."""

REFERENCE = Reference()

_LOG = logging.getLogger("unflat.rendering")
_HINT = 'several times faster with: pip install "unflat[fast]"'


def current() -> Choice:
    """What is asked for: ``auto`` unless `choose`, `use` or UNFLAT_BACKEND say otherwise.

    Raises:
        UserError: UNFLAT_BACKEND holds another word.
    """
    if _chosen is not None:
        return _chosen
    word = os.environ.get("UNFLAT_BACKEND", "auto")
    if word not in get_args(Choice):
        raise UserError(
            f"UNFLAT_BACKEND is {word!r}, which is no backend; make it auto, reference or fused."
        )
    return word  # pyright: ignore[reportReturnType]


def choose(choice: Choice) -> None:
    """Forces a backend from here on, in this process.

    Raises:
        ValueError: there is no such choice.
    """
    global _chosen
    if choice not in get_args(Choice):
        raise ValueError(f"backend {choice!r} is none of {get_args(Choice)}")
    _chosen = choice


@contextmanager
def use(choice: Choice) -> Iterator[None]:
    """Forces a backend for a while."""
    global _chosen
    before = _chosen
    choose(choice)
    try:
        yield
    finally:
        _chosen = before


def compile_at_once() -> None:
    """From here on kernels are compiled for any amount of work, in this process.

    Otherwise the first pictures on a computer are the reference's, until compiling pays; and a
    figure's last digit could tell which were.
    """
    global _at_once
    _at_once = True


def pick(field: Field, rays: Rays) -> Backend:
    """The backend that marches this field along these rays.

    Raises:
        UserError: ``fused`` is asked for, but no fused backend takes this field and these rays.
    """
    choice = current()
    if choice == "reference":
        return REFERENCE
    reasons: list[str] = []
    for backend in _fused_for(field, rays.edges.device.type):
        reason = backend.refuses(field, rays)
        if reason is None:
            at_once = _at_once or choice == "fused"
            return backend if at_once or backend.pays(field, rays) else REFERENCE
        reasons.append(f"{backend.name}: {reason}")
    if choice == "fused":
        why = "; ".join(reasons) or f"none is installed for {rays.edges.device.type}; {_HINT}"
        raise UserError(
            f"backend fused: cannot march {type(field).__name__} ({why}); take auto or reference."
        )
    return REFERENCE


@torch.no_grad()
def ask(field: Field, points: Float[Tensor, "batch *points 3"]) -> FieldOutput:
    """A field's answer at many points, without gradients: for grids and surfaces.

    Fused where a backend knows the field, unless the reference is asked for. Fields that look at
    the direction of travel are asked without one.

    Args:
        field: any.
        points: world units.
    """
    choice = current()
    if choice != "reference" and points.numel():
        for backend in _fused_for(field, points.device.type):
            if not (_at_once or choice == "fused" or backend.pays_to_ask(field, points)):
                break
            answer = backend.ask(field, points)
            if answer is not None:
                return answer
    return field(points)


def _fused_for(field: Field, device: str) -> Sequence[Backend]:
    """Fused backends; for a palette, those that march its choices."""
    known = _fused(device)
    return [Mixing(backend) for backend in known] if type(field) is PaletteField else known


@cache
def _fused(device: str) -> list[Backend]:
    """Fused backends for a kind of device, as far as they are installed."""
    if device == "cpu":
        if find_spec("numba"):
            from unflat.rendering.backends.cpu.backend import Cpu

            return [Cpu()]
        _LOG.warning("rendering in plain torch; %s", _HINT)  # once, for this is cached
    if device == "cuda":
        if find_spec("triton"):
            from unflat.rendering.backends.triton.backend import Triton

            wrong = disagreement(Triton(), device)
            if wrong is None:
                return [Triton()]
            _LOG.warning("rendering in plain torch, not by Triton: %s; please report this", wrong)
            return []
        _LOG.warning("rendering in plain torch; pip install triton makes it fast")
    return []


def installed() -> list[str]:
    """Names of the fused backends that this computer has."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [backend.name for device in devices for backend in _fused(device)]


_chosen: Choice | None = None
_at_once = False

__all__ = [
    "REFERENCE",
    "Backend",
    "Choice",
    "Marched",
    "Marching",
    "Rays",
    "Reference",
    "ask",
    "choose",
    "compile_at_once",
    "current",
    "installed",
    "interval_lengths",
    "pick",
    "use",
]
