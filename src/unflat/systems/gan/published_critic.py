"""The critic of nerf-from-image's checkpoints (arXiv 2211.11674), read into ours."""

import math
import re
from collections.abc import Mapping

from torch import Tensor

from unflat.nn.critic import Critic
from unflat.nn.published import from_published

_PREFIX = "backbone."
_FIXED = ".resample_filter"  # a constant, which ours is as well
_LAST = {"b4.conv": "join", "b4.fc": "flatten", "b4.out": "leave"}
_IN_BLOCK = {"conv0": "first", "conv1": "second", "skip": "skip"}


def critic_from_published(state: Mapping[str, Tensor]) -> Critic:
    """The critic whose weights are the ``discriminator`` of such a file, frozen.

    Sizes are read off the weights. Pictures are in -1 to 1 around a background of 0 or 1, a mask in
    [0, 1] is the fourth channel if there is one; the condition is
    `unflat.geometry.published_pose.critic_condition`.

    Args:
        state: every weight by its published name.

    Raises:
        ValueError: weights are missing, unknown or of another shape; the message names the first.
    """
    sides = [int(found[1]) for name in state if (found := _match_entry(name))]
    if len(sides) != 1:
        raise ValueError(f"backbone.b<side>.fromrgb.weight must be there once, is {len(sides)} x")
    side = sides[0]
    names = {name: ours for name in state if (ours := _our_name(name, side)) is not None}
    unknown = next((name for name in state if name not in names and _FIXED not in name), None)
    if unknown is not None:
        raise ValueError(f"{unknown} is no weight of this critic")
    entry = state[f"{_PREFIX}b{side}.fromrgb.weight"]
    mapped = [
        name for name in names.values() if re.fullmatch(r"mapping\.layers\.\d+\.weight", name)
    ]
    first = state.get(f"{_PREFIX}mapping.fc0.weight")

    def build() -> Critic:
        return Critic(
            side,
            channels=entry.shape[1],
            width=entry.shape[0],
            widest=max(len(value) for name, value in state.items() if ".conv1.weight" in name),
            condition_dim=0 if first is None else first.shape[1],
            mapping_depth=len(mapped),
            mapping_kind="plain",
        )

    return from_published(build, {ours: state[name] for name, ours in names.items()})


def _match_entry(name: str) -> re.Match[str] | None:
    return re.fullmatch(r"backbone\.b(\d+)\.fromrgb\.weight", name)


def _our_name(name: str, side: int) -> str | None:
    """Ours for a published name; None for what has none."""
    if not name.startswith(_PREFIX) or name.endswith(_FIXED):
        return None
    path, _, leaf = name.removeprefix(_PREFIX).rpartition(".")
    if leaf not in ("weight", "bias"):
        return None
    if path in _LAST:
        return f"{_LAST[path]}.{leaf}"
    if path == f"b{side}.fromrgb":
        return f"enter.{leaf}"
    if found := re.fullmatch(r"mapping\.fc(\d+)", path):
        return f"mapping.layers.{found[1]}.{leaf}"
    if found := re.fullmatch(r"b(\d+)\.(conv0|conv1|skip)", path):
        level = round(math.log2(side / int(found[1])))
        return f"blocks.{level}.{_IN_BLOCK[found[2]]}.{leaf}"
    return None
