"""How much memory a published model takes, counted before it is used, and how to stay in a budget.

    cost = memory_cost(model)
    plan = plan_memory(cost, budget=8e9, views=16)
    follow(plan, model)                         # then denoise plan.views views at a time

Weights are summed. What flows through the networks is counted by running them on torch's meta
device, where shapes flow and no numbers.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from unflat.errors import UserError
from unflat.systems.zero123.one_token import fold_attention
from unflat.systems.zero123.published import SIDE, PublishedViews

GIGABYTE = 1_000_000_000
_OVERHEAD = 600_000_000  # bytes that a CUDA context and its libraries take
_SLACK = 1.3  # of what flows: workspaces of convolutions, and gaps between what is allocated
_HALVES = 2  # of a guided view: told, and not told


@dataclass(frozen=True, kw_only=True)
class MemoryCost:
    """Bytes, in the precision of a model."""

    denoiser: int
    """Weights that are needed at every step."""
    clip: int
    """Weights of the picture tower, which sees a picture once."""
    autoencoder: int
    """Weights that turn pictures to latents and back."""
    sample: int
    """What flows through the denoiser for one latent; a guided view is two."""
    picture: int
    """What flows through the autoencoder for one picture, either way."""

    @property
    def weights(self) -> int:
        """Of all parts."""
        return self.denoiser + self.clip + self.autoencoder


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How to make views within a budget."""

    views: int
    """To denoise at a time."""
    is_sliced: bool
    """Whether pictures go through the autoencoder one by one."""
    is_offloaded: bool
    """Whether CLIP and the autoencoder wait on the CPU while they are not used."""
    bytes: int
    """What it takes at most."""


def memory_cost(model: PublishedViews) -> MemoryCost:
    """What a model takes, by its weights and by what flows through its networks."""
    with torch.device("meta"):
        unet = type(model.unet).from_config(model.unet.config)
        vae = type(model.vae).from_config(model.vae.config)
    width = model.projection.out_features
    if model.constants is not None:
        width = len(fold_attention(unet).bias)
    for network in (unet, vae):
        nn.Module.to(network, model.dtype)  # diffusers' own way warns of parts that it has not
    latent = torch.empty(1, *model.latent_shape, dtype=model.dtype, device="meta")
    image = torch.empty(1, 3, SIDE, SIDE, dtype=model.dtype, device="meta")
    token = torch.empty(1, 1, width, dtype=model.dtype, device="meta")
    timestep = torch.zeros(1, dtype=torch.long, device="meta")
    both = torch.cat([latent, latent], dim=1)
    parts = (model.constants, model.projection)
    return MemoryCost(
        denoiser=_bytes(model.unet) + sum(_bytes(part) for part in parts if part is not None),
        clip=_bytes(model.clip),
        autoencoder=_bytes(model.vae),
        sample=_foreseen(lambda: unet(both, timestep, token)),
        picture=max(_foreseen(lambda: vae.decode(latent)), _foreseen(lambda: vae.encode(image))),
    )


def plan_memory(cost: MemoryCost, budget: float, views: int) -> MemoryPlan:
    """The fastest way to make views within a budget.

    As much as possible at a time; then pictures one by one; then what is not used goes to the CPU,
    which costs copies back and forth; then fewer views at a time.

    Args:
        cost: of the model.
        budget: bytes of the device.
        views: wanted.

    Raises:
        UserError: not even one view fits.
    """
    for is_offloaded in (False, True):
        for is_sliced in (False, True):
            plan = _plan(cost, views, is_sliced, is_offloaded)
            if plan.bytes <= budget:
                return plan
    for count in range(views, 0, -1):
        plan = _plan(cost, count, True, True)
        if plan.bytes <= budget:
            return plan
    least = _plan(cost, 1, True, True).bytes / GIGABYTE
    raise UserError(
        f"--vram {budget / GIGABYTE:g}: one view takes {least:.1f} GB; give more, use half "
        "precision, or --device cpu."
    )


def follow(plan: MemoryPlan, model: PublishedViews) -> None:
    """Set a model up as planned; how many views go at a time is the caller's."""
    if plan.is_sliced:
        model.slice_decoding()
    if plan.is_offloaded:
        model.offload()


def flowing_bytes(work: Callable[[], Any]) -> int:
    """Most bytes that a piece of work holds at a time in tensors it makes, its answer included."""
    counter = _Counter()
    with torch.no_grad(), counter:
        work()
    return counter.peak


def _plan(cost: MemoryCost, views: int, is_sliced: bool, is_offloaded: bool) -> MemoryPlan:
    pictures = 1 if is_sliced else views
    denoising = _HALVES * views * cost.sample * _SLACK
    decoding = pictures * cost.picture * _SLACK
    if is_offloaded:  # one part beside the denoiser at a time
        most = cost.denoiser + max(denoising, cost.autoencoder + decoding, cost.clip)
    else:
        most = cost.weights + max(denoising, decoding)
    return MemoryPlan(
        views=views,
        is_sliced=is_sliced,
        is_offloaded=is_offloaded,
        bytes=int(most) + _OVERHEAD,
    )


def _bytes(module: nn.Module | None) -> int:
    if module is None:
        return 0
    held = [*module.parameters(), *module.buffers()]
    return sum(value.numel() * value.element_size() for value in held)


def _foreseen(work: Callable[[], Any]) -> int:
    """What flows when attention is fused, as it is wherever numbers flow, but not on meta."""
    with _FusedAttention():
        return flowing_bytes(work)


class _FusedAttention(TorchFunctionMode):
    """Attention makes its answer and holds nothing else."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            query = args[0] if args else kwargs["query"]
            return torch.empty_like(query)
        return func(*args, **(kwargs or {}))


class _Counter(TorchDispatchMode):
    """Sees every operation; knows which of the storages that they made are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {id(value.untyped_storage()) for value in _tensors((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for value in _tensors(made):
            storage = value.untyped_storage()
            if id(storage) not in self._seen and id(storage) not in before:
                self._count(storage)
        return made

    def _count(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()

        def gone(_: Any) -> None:
            self.now -= size
            self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _tensors(tree: Any) -> list[Tensor]:
    return [value for value in _pytree.tree_leaves(tree) if isinstance(value, Tensor)]
