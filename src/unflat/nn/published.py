"""Networks whose weights others have published: built without random weights, filled, frozen."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

_COUNTER = "num_batches_tracked"  # of batch norms; older files have none, and nothing here reads it


def from_published(build: Callable[[], Network], state: Mapping[str, Tensor]) -> Network:
    """A network that holds copies of the given weights in float32, frozen, in evaluation mode.

    Args:
        build: makes the network.
        state: every weight the network has, under its name; other entries are left alone, as a
            trunk leaves the classifier of its file.

    Raises:
        ValueError: a weight is missing or has another shape; the message names the first.
    """
    shapes = published_shapes(build)
    for name, shape in shapes.items():
        if name not in state or state[name].shape != shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise ValueError(f"{name} must be of shape {tuple(shape)}, got {found}")
    with torch.device("meta"):
        network = build()
    chosen = {name: state[name].detach().to(torch.float32, copy=True) for name in shapes}
    counters = [name for name in network.state_dict() if name.endswith(_COUNTER)]
    chosen |= {name: torch.zeros((), dtype=torch.long) for name in counters}
    network.load_state_dict(chosen, assign=True)
    return network.eval().requires_grad_(False)


def published_shapes(build: Callable[[], nn.Module]) -> dict[str, torch.Size]:
    """Name and shape of every weight that a file for this network must hold; costs no memory."""
    with torch.device("meta"):
        state = build().state_dict()
    return {name: value.shape for name, value in state.items() if not name.endswith(_COUNTER)}
