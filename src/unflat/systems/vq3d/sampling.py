"""Drawing codes: which are decided in which pass, and how one is drawn from its logits.

Masked decoding decides coarse codes first (all of a token's first codes before any second one),
so that codes of one token are never drawn at once, and within them tokens that lie far apart
(Halton-MaskGIT, arXiv 2503.17076), so that those drawn at once say little about each other.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def rolled_ranks(
    order: Int[Tensor, " tokens"], batch: int, generator: torch.Generator
) -> Int[Tensor, "batch tokens"]:
    """When each token's turn comes, the order moved by a random amount round the grid.

    A moved Halton order leaves cells as far apart as before; the samples of a batch differ.
    """
    side = math.isqrt(len(order))
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device)
    shifts = torch.randint(side, (batch, 2), generator=generator, device=generator.device).tolist()
    grid = ranks.view(side, side)
    return torch.stack([grid.roll(shift, dims=(0, 1)).flatten() for shift in shifts])


def passes_per_code(steps: int, codes: int, tokens: int) -> list[int]:
    """How many of the passes go to each code of the tokens.

    Every code gets one; of two neighbours the coarser gets twice as many, as what it decides (the
    layout) depends most on what else is decided; none gets more than there are tokens.

    Raises:
        ValueError: fewer passes than codes, or more than decisions.
    """
    if not codes <= steps <= codes * tokens:
        raise ValueError(f"steps {steps}: must be from {codes} to {codes * tokens}")
    counts = [1] * codes
    for _ in range(steps - codes):
        open_slots = [slot for slot in range(codes) if counts[slot] < tokens]
        neediest = max(open_slots, key=lambda slot: 0.5**slot / (counts[slot] + 0.5))
        counts[neediest] += 1
    return counts


def decided_after(passes: int, unknown: Int[Tensor, " batch"]) -> list[Int[Tensor, " batch"]]:
    """How many of the unknown tokens are decided after 0, 1, ... of the passes.

    MaskGIT's cosine: few at first, when little is known; at least one a pass; all in the end.
    """
    counts = []
    for number in range(passes + 1):
        share = 1 - math.cos(0.5 * math.pi * number / passes)
        least = torch.full_like(unknown, number)
        count = torch.maximum((unknown * share).round().long(), least)
        counts.append(torch.minimum(count, unknown) if number < passes else unknown)
    return counts


def filter_logits(
    logits: Float[Tensor, "*batch size"], top_k: int | None = None, top_p: float | None = None
) -> Float[Tensor, "*batch size"]:
    """Logits, -inf where a code may not be drawn.

    Args:
        logits: of one code.
        top_k: only the so many likeliest codes.
        top_p: only the fewest likeliest codes that together reach this probability, of what
            ``top_k`` leaves (nucleus sampling, arXiv 1904.09751).
    """
    if top_k is not None and top_k < logits.shape[-1]:
        kept = torch.zeros_like(logits, dtype=torch.bool)
        kept.scatter_(-1, logits.topk(top_k, dim=-1).indices, True)
        logits = logits.masked_fill(~kept, -math.inf)
    if top_p is not None and top_p < 1:
        shares, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        before = shares.cumsum(-1) - shares
        kept = torch.zeros_like(logits, dtype=torch.bool)
        kept.scatter_(-1, order, before < top_p)
        logits = logits.masked_fill(~kept, -math.inf)
    return logits


def draw(logits: Float[Tensor, "*batch size"], generator: torch.Generator) -> Int[Tensor, "*batch"]:
    """One code of each distribution, by the Gumbel maximum; -inf is never drawn."""
    uniform = torch.rand(
        logits.shape, generator=generator, device=generator.device, dtype=logits.dtype
    )
    # Exponential waiting times: the first event of rates exp(logit) has their distribution.
    waiting = -torch.log1p(-uniform).to(logits.device)
    tiny = torch.finfo(logits.dtype).tiny
    return (logits - waiting.clamp_min(tiny).log()).argmax(-1)


def guided(
    conditional: Float[Tensor, "*batch size"],
    unconditional: Float[Tensor, "*batch size"],
    guidance_scale: float,
) -> Float[Tensor, "*batch size"]:
    """Classifier-free guidance: unconditional + scale (conditional - unconditional).

    Args:
        conditional: logits that know the class.
        unconditional: the same without.
        guidance_scale: 1 gives the conditional ones, 0 the unconditional ones.
    """
    return unconditional + guidance_scale * (conditional - unconditional)


def first_ranked(
    ranks: Int[Tensor, "batch tokens"],
    unknown: Bool[Tensor, "batch tokens"],
    start: Int[Tensor, " batch"],
    end: Int[Tensor, " batch"],
) -> Bool[Tensor, "batch tokens"]:
    """The unknown tokens whose place among the unknown ones, by rank, is in [start, end)."""
    last = ranks.max() + 1
    among = torch.where(unknown, ranks, last).argsort(dim=1, stable=True).argsort(dim=1)
    return unknown & (among >= start[:, None]) & (among < end[:, None])


def check_sampling(
    *,
    temperature: float,
    guidance_scale: float,
    top_k: int | None,
    top_p: float | None,
) -> None:
    """Refuse settings of sampling that mean nothing.

    Raises:
        ValueError: one is out of its range; the message names it, its value and the range.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature {temperature:g}: must be above 0")
    if not (guidance_scale >= 0 and math.isfinite(guidance_scale)):
        raise ValueError(f"guidance_scale {guidance_scale:g}: must be at least 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k {top_k}: must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p {top_p:g}: must be above 0 and at most 1")


def check_given(
    given: Int[Tensor, "batch tokens codes"], codebook_sizes: Sequence[int], batch: int, tokens: int
) -> None:
    """Refuse known codes that no token of this kind can have.

    Raises:
        ValueError: the shape does not fit, or a code is neither -1 nor in its codebook.
    """
    expected = (batch, tokens, len(codebook_sizes))
    if tuple(given.shape) != expected:
        raise ValueError(f"given has shape {tuple(given.shape)}, not {expected}")
    sizes = torch.tensor(codebook_sizes, device=given.device)
    if bool(((given < -1) | (given >= sizes)).any()):
        raise ValueError(f"given holds codes outside -1 and {tuple(codebook_sizes)}")
