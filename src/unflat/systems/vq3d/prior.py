"""VQ3D stage 2: what tokens go together, so that new ones can be drawn (arXiv 2302.06833).

Two ways to draw them with one network: in raster order, one code after the other, as the paper
does; or masked (MaskGIT, arXiv 2202.04200), many at once from what is known so far, in a dozen
passes instead of one for every code. Both complete what is given::

    prior = load_prior("runs/prior")
    indices = prior.sample(torch.tensor([3, 3]), torch.Generator().manual_seed(0))
"""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from unflat.errors import UserError
from unflat.hub.registry import find
from unflat.nn.halton import halton_order
from unflat.nn.initialize import start_small
from unflat.nn.transformer import Transformer
from unflat.systems.vq3d import sampling
from unflat.systems.vq3d.config import Levels
from unflat.systems.vq3d.prior_config import PriorConfig
from unflat.training.model_file import load_weights

SYSTEM = "vq3d-prior"
"""Name under which model files are known."""

NO_CLASS = -1
"""Label of a sample whose class does not matter."""

Decoding = Literal["halton", "confidence"]

Drawn = Callable[[Tensor, int], tuple[Tensor, Tensor]]


class CodeEmbedding(nn.Module):
    """Vectors of all codes of all slots of a token, one table below the other.

    A code that packs several numbers is its own vector plus one of each number's level, so that
    codes which differ in one number by one level begin alike; the levels' vectors begin as smooth
    curves.
    """

    def __init__(self, codebook_sizes: Sequence[int], levels: Levels, width: int):
        super().__init__()
        self.total = sum(codebook_sizes)
        self.own = nn.Parameter((0.02 if levels else 0.3) * torch.randn(self.total, width))
        self.numbers: nn.Parameter | None = None
        self.rows: Tensor
        if levels:
            curves = [_smooth(level, width) for code in levels for level in code]
            self.numbers = nn.Parameter(torch.cat(curves))
            self.register_buffer("rows", _rows_of_numbers(levels), persistent=False)

    def forward(self) -> Float[Tensor, "total width"]:
        """The whole table."""
        if self.numbers is None:
            return self.own
        padded = torch.cat([self.numbers, torch.zeros_like(self.numbers[:1])])
        return self.own + functional.embedding_bag(self.rows, padded, mode="sum")


class Prior(nn.Module):
    """The distribution of tokens, given a class.

    Args:
        config: sizes and order.
        classes: names of the labels.
        fingerprint: of the tokenizer whose tokens these are (`unflat.systems.vq3d.tokens`).
        autoencoder: name or path of the stage-1 model that decodes them.
    """

    def __init__(
        self,
        config: PriorConfig,
        classes: Sequence[str] = (),
        fingerprint: str = "",
        autoencoder: str = "",
    ):
        super().__init__()
        if classes and len(classes) != config.classes:
            raise ValueError(f"{len(classes)} class names for {config.classes} classes")
        self.config = config
        self.classes = list(classes)
        self.fingerprint = fingerprint
        self.autoencoder = autoencoder
        width, is_raster = config.width, config.order == "raster"
        self.embedding = CodeEmbedding(config.codebook_sizes, config.levels, width)
        self.class_embedding = nn.Parameter(0.3 * torch.randn(config.classes + 1, width))
        self.positions = nn.Parameter(0.3 * torch.randn(config.tokens, width))
        # Masked: what stands for an unknown code. Raster: which code of the token comes next.
        self.slots = nn.Parameter(0.3 * torch.randn(config.codes, width))
        self.trunk = Transformer(
            width,
            config.depth,
            config.heads,
            config.mlp_ratio,
            causal=is_raster,
            dropout=config.dropout,
        )
        self.to_code = nn.Linear(width, width)
        start_small(self.to_code, 0.002)
        self.bias = nn.Parameter(torch.zeros(self.embedding.total))
        ends = torch.tensor(config.codebook_sizes).cumsum(0)
        self.offsets: Tensor
        self.halton: Tensor
        self.register_buffer(
            "offsets", ends - torch.tensor(config.codebook_sizes), persistent=False
        )
        self.register_buffer("halton", halton_order(config.grid), persistent=False)

    @torch.no_grad()
    def start_from_counts(self, indices: Int[Tensor, "samples tokens codes"]) -> None:
        """Sets the outputs' offsets so that an untrained prior knows how frequent codes are."""
        for slot, bias in enumerate(self.bias.split(list(self.config.codebook_sizes))):
            counts = torch.bincount(indices[..., slot].flatten(), minlength=len(bias)).float() + 0.5
            bias.copy_((counts / counts.sum()).log())

    def hidden(
        self,
        indices: Int[Tensor, "batch tokens codes"],
        labels: Int[Tensor, " batch"],
        table: Float[Tensor, "total width"] | None = None,
    ) -> Float[Tensor, "batch places width"]:
        """What the network makes of the codes.

        Args:
            indices: masked: -1 where unknown; raster: all known.
            labels: `NO_CLASS` hides the class.
            table: ``embedding()``, where the caller has it already.

        Returns:
            Masked: one vector for each token, from which any of its codes is told. Raster: one for
            each code, from the codes before it alone.
        """
        vectors = self.embedding() if table is None else table
        if self.config.order == "masked":
            return self.trunk(self._masked_inputs(vectors, indices, labels))
        return self.trunk(self._raster_inputs(vectors, indices.flatten(1)[:, :-1], labels))

    def logits(
        self,
        hidden: Float[Tensor, "*batch width"],
        slot: int,
        table: Float[Tensor, "total width"] | None = None,
    ) -> Float[Tensor, "*batch size"]:
        """Logits of a token's code, by the same vectors that codes are read with.

        Args:
            hidden: from :meth:`hidden`.
            slot: which of the token's codes.
            table: ``embedding()``, where the caller has it already.
        """
        sizes = self.config.codebook_sizes
        start = sum(sizes[:slot])
        rows = slice(start, start + sizes[slot])
        vectors = (self.embedding() if table is None else table)[rows]
        return functional.linear(self.to_code(hidden), vectors, self.bias[rows])

    @torch.no_grad()
    def sample(
        self,
        labels: Int[Tensor, " batch"],
        generator: torch.Generator,
        *,
        given: Int[Tensor, "batch tokens codes"] | None = None,
        steps: int = 16,
        temperature: float = 1.0,
        guidance_scale: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        decoding: Decoding = "halton",
    ) -> Int[Tensor, "batch tokens codes"]:
        """Tokens drawn from the prior.

        Args:
            labels: class of each; `NO_CLASS` leaves it open.
            generator: the only source of randomness.
            given: what is known already and stays, -1 where it is not. In raster order a code
                hears only of those before it.
            steps: passes of masked decoding, from the number of a token's codes to that of all
                codes. Raster order needs one pass for every code, whatever is said here.
            temperature: divides the logits; above 0.
            guidance_scale: unconditional + scale (conditional - unconditional) logits, at least 0.
            top_k: draw only from the so many likeliest codes.
            top_p: draw only from the fewest codes that reach this probability, in (0, 1].
            decoding: masked: tokens in Halton order, or first those that the network is surest of.

        Raises:
            ValueError: a setting is out of its range, or ``given`` does not fit.
        """
        config, batch = self.config, len(labels)
        sampling.check_sampling(
            temperature=temperature, guidance_scale=guidance_scale, top_k=top_k, top_p=top_p
        )
        if batch and not -1 <= int(labels.min()) <= int(labels.max()) < config.classes:
            raise ValueError(f"labels must be from -1 to {config.classes - 1}")
        if given is None:
            given = labels.new_full((batch, config.tokens, config.codes), -1)
        sampling.check_given(given, config.codebook_sizes, batch, config.tokens)

        table = self.embedding()

        def drawn(hidden: Tensor, slot: int) -> tuple[Tensor, Tensor]:
            """Codes of a slot, and the logarithms of their probabilities.

            Hidden vectors: copies (with, and for guidance without the class) x places x width.
            """
            logits = self.logits(hidden, slot, table)
            if guidance_scale == 1:
                mixed = logits[0]
            else:
                mixed = sampling.guided(logits[0], logits[1], guidance_scale)
            mixed = sampling.filter_logits(mixed / temperature, top_k, top_p)
            codes = sampling.draw(mixed, generator)
            return codes, mixed.log_softmax(-1).gather(-1, codes[..., None])[..., 0]

        is_training, _ = self.training, self.eval()
        both = labels if guidance_scale == 1 else torch.cat([labels, labels.new_full([batch], -1)])
        try:
            if config.order == "raster":
                return self._sample_raster(table, both, given, drawn)
            ranks = sampling.rolled_ranks(self.halton, batch, generator).to(given.device)
            passes = sampling.passes_per_code(steps, config.codes, config.tokens)
            return self._sample_masked(table, both, given, drawn, ranks, passes, decoding)
        finally:
            self.train(is_training)

    def _sample_masked(
        self,
        table: Tensor,
        labels: Tensor,
        given: Tensor,
        drawn: Drawn,
        ranks: Tensor,
        passes: Sequence[int],
        decoding: Decoding,
    ) -> Tensor:
        known, copies = given.clone(), len(labels) // max(1, len(given))
        for slot, count in enumerate(passes):
            was_unknown = known[..., slot] < 0
            ends = sampling.decided_after(count, was_unknown.sum(1))
            for start, end in itertools.pairwise(ends):
                if not bool((end > start).any()):
                    continue
                hidden = self.hidden(known.repeat(copies, 1, 1), labels, table)
                hidden = hidden.unflatten(0, (copies, -1))
                if decoding == "halton":  # only what is decided now is drawn
                    chosen = sampling.first_ranked(ranks, was_unknown, start, end)
                    known[..., slot][chosen] = drawn(hidden[:, chosen], slot)[0]
                    continue
                codes, sureness = (
                    part.view_as(ranks) for part in drawn(hidden.flatten(1, 2), slot)
                )
                # What is decided already keeps its place before the rest.
                sureness = sureness.masked_fill(known[..., slot] >= 0, math.inf)
                surest = sureness.argsort(dim=1, descending=True).argsort(dim=1)
                chosen = sampling.first_ranked(surest, was_unknown, start, end)
                known[..., slot] = torch.where(chosen, codes, known[..., slot])
        return known

    def _sample_raster(
        self, table: Tensor, labels: Tensor, given: Tensor, drawn: Drawn, *, is_cached: bool = True
    ) -> Tensor:
        flat, copies = given.flatten(1).clone(), len(labels) // max(1, len(given))
        count = flat.shape[1]
        caches = self.trunk.caches(count) if is_cached else None
        for place in range(count):
            before = flat[:, :place].repeat(copies, 1)
            inputs = self._raster_inputs(table, before, labels, since=place if is_cached else 0)
            hidden = self.trunk(inputs, caches)[:, -1].unflatten(0, (copies, -1))
            codes, _ = drawn(hidden, place % self.config.codes)
            flat[:, place] = torch.where(flat[:, place] < 0, codes, flat[:, place])
        return flat.view_as(given)

    def _masked_inputs(self, table: Tensor, indices: Tensor, labels: Tensor) -> Tensor:
        """Position + class + sum of the codes' vectors, those of unknown codes included."""
        unknown = self.embedding.total + torch.arange(self.config.codes, device=indices.device)
        rows = torch.where(indices < 0, unknown, indices + self.offsets)
        both = torch.cat([table, self.slots])
        summed = functional.embedding_bag(rows.flatten(0, 1), both, mode="sum")
        tokens = summed.unflatten(0, indices.shape[:2]) + self.positions
        return tokens + self.class_embedding[labels][:, None]  # -1 is the last row

    def _raster_inputs(
        self, table: Tensor, before: Tensor, labels: Tensor, since: int = 0
    ) -> Tensor:
        """Class, then the codes so far; each with the place of the code that comes after it."""
        config, count = self.config, before.shape[1] + 1
        places = torch.arange(since, count, device=before.device)
        rows = before + self.offsets.repeat(config.tokens)[: count - 1]
        inputs = table[rows[:, max(0, since - 1) :]]
        if since == 0:
            inputs = torch.cat([self.class_embedding[labels][:, None], inputs], dim=1)
        return inputs + self.positions[places // config.codes] + self.slots[places % config.codes]


def load_prior(model: str | Path, device: str = "cpu", offline: bool = False) -> Prior:
    """The prior of a name, a file or a run's folder, in evaluation mode.

    Raises:
        UserError: there is no such model, or it is another system's or another version's.
    """
    path = find(model, offline=offline)
    state, header = load_weights(path)
    if header.get("system") != SYSTEM:
        raise UserError(
            f"{path}: is a model of {header.get('system')}, not of {SYSTEM}; give a prior, as "
            "unflat train vq3d-prior makes them."
        )
    try:
        prior = Prior(
            PriorConfig.from_json(header["config"]),
            header["classes"],
            header["fingerprint"],
            header["autoencoder"],
        )
        prior.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: does not fit this version of {SYSTEM}; train it again or use another unflat."
        ) from error
    return prior.eval().to(device)


def _smooth(level: int, width: int) -> Float[Tensor, "level width"]:
    """Vectors along a random curve of low frequencies, one for each level of a number."""
    place = (torch.arange(level) + 0.5) / level
    frequencies = torch.arange(1, min(level, 8))
    waves = (math.pi * place[:, None] * frequencies).cos() / frequencies
    return 0.3 * waves @ torch.randn(len(frequencies), width)


def _rows_of_numbers(levels: Levels) -> Int[Tensor, "total most"]:
    """For each code of each slot the rows of its numbers' levels; the last row pads."""
    most = max(len(code) for code in levels)
    padding = sum(level for code in levels for level in code)
    parts, start = [], 0
    for code in levels:
        index = torch.arange(math.prod(code))
        rows = torch.full((len(index), most), padding)
        base = 1
        for place, level in enumerate(code):
            rows[:, place] = start + index // base % level
            start, base = start + level, base * level
        parts.append(rows)
    return torch.cat(parts)
