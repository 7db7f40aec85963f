"""Low-rank adapters: a frozen linear layer learns a correction of few numbers.

Hu et al., arXiv 2106.09685: y = W x + b + (alpha / rank) B A x. B begins at zero, so that nothing
is changed yet; A begins at random, so that B has a gradient.

    adapters = add_adapters(unet, "to_[qkv]", rank=8, alpha=8.0)    # in place
    merge_adapters(plain, weights, scale=1.0)      # into a network without them, for good
"""

import re

import torch
from jaxtyping import Float
from torch import Tensor, nn

_DOWN, _UP = "down.weight", "up.weight"


class LowRank(nn.Module):
    """A linear layer and its adapter; only the adapter asks for gradients.

    Args:
        layer: is frozen.
        rank: of the correction.
        alpha: the correction is times alpha / rank.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        device, self.scale = layer.weight.device, alpha / rank
        self.down = nn.Linear(layer.in_features, rank, bias=False, device=device)  # A
        self.up = nn.Linear(rank, layer.out_features, bias=False, device=device)  # B
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """The layer's answer, corrected."""
        return self.layer(x) + self.scale * self.up(self.down(x))


class _Tree(nn.Module):
    """Modules under dotted names, which torch's containers do not take."""


def add_adapters(network: nn.Module, names: str, rank: int, alpha: float) -> nn.Module:
    """Put adapters around linear layers, in place.

    Args:
        network: is frozen but for the adapters.
        names: pattern that ends the names of the layers.
        rank: of each.
        alpha: see `LowRank`.

    Returns:
        What learns, and nothing else: under the layers' names ``down`` and ``up``.

    Raises:
        ValueError: no linear layer is called so.
    """
    network.requires_grad_(False)
    pattern = re.compile(rf"(.*\.)?({names})")
    found = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and pattern.fullmatch(name)
    ]
    if not found:
        raise ValueError(f"no linear layer's name ends with {names}")
    learned = _Tree()
    for name, layer in found:
        adapter = LowRank(layer, rank, alpha)
        owner, _, leaf = name.rpartition(".")
        network.get_submodule(owner)._modules[leaf] = adapter  # a list's items have no attribute
        place(learned, f"{name}.down", adapter.down)
        place(learned, f"{name}.up", adapter.up)
    return learned


def place(tree: nn.Module, name: str, module: nn.Module) -> None:
    """Hang a module under a dotted name, making what leads there."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in tree._modules:
            tree.add_module(part, _Tree())
        tree = tree.get_submodule(part)
    tree.add_module(leaf, module)


@torch.no_grad()
def merge_adapters(network: nn.Module, weights: dict[str, Tensor], scale: float) -> None:
    """Add adapters to the layers they were made for: W + scale B A.

    Args:
        network: without adapters; changed in place.
        weights: by name, as the state of `add_adapters`'s answer; others are left alone.
        scale: alpha / rank.

    Raises:
        ValueError: the network has no such layer, or one of another size.
    """
    for name in [name for name in weights if name.endswith(f".{_DOWN}")]:
        stem = name.removesuffix(f".{_DOWN}")
        correction = scale * weights[f"{stem}.{_UP}"].double() @ weights[name].double()
        try:
            layer = network.get_submodule(stem)
        except AttributeError:
            layer = None
        if not isinstance(layer, nn.Linear) or layer.weight.shape != correction.shape:
            raise ValueError(f"{stem} is no layer of {tuple(correction.shape)} weights")
        layer.weight.add_(correction.to(layer.weight))
