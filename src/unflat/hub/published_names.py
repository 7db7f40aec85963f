"""Names of published weights to ours: every key is known, and used once."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import Tensor, nn

from unflat.errors import UserError
from unflat.nn.published import from_published, published_shapes

Network = TypeVar("Network", bound=nn.Module)
Names = dict[str, str | None]
"""Published name to ours; none where the weight is known and does nothing here."""


def renamed(
    state: Mapping[str, Tensor], names: Names, source: str, kind: str = "generator"
) -> dict[str, Tensor]:
    """The weights under our names.

    Args:
        state: of the file.
        names: all that a file must hold, and all that it may.
        source: for the message, as in the path of the file.
        kind: of network, for the message.

    Raises:
        UserError: a key is missing or unknown.
    """
    if missing := names.keys() - state.keys():
        raise UserError(
            f"{source}: lacks {min(missing)}, so that it is cut or of another network; "
            "give a file as published."
        )
    if unknown := state.keys() - names.keys():
        raise UserError(
            f"{source}: holds {min(unknown)}, which no {kind} of its kind has; "
            "give a file as published."
        )
    return {ours: state[name] for name, ours in names.items() if ours is not None}


def filled(build: Callable[[], Network], state: dict[str, Tensor], source: str) -> Network:
    """A network with these weights and no others, frozen, in evaluation mode.

    Raises:
        UserError: a weight has another shape.
        ValueError: a weight is not the network's.
    """
    foreign = state.keys() - published_shapes(build).keys()
    if foreign:
        raise ValueError(f"{min(foreign)} is no weight of the network")
    try:
        return from_published(build, state)
    except ValueError as error:
        raise UserError(f"{source}: {error}; give a file as published.") from error


def linear_names(published: str, ours: str) -> Names:
    """Weight and bias of a layer."""
    return {f"{published}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}
