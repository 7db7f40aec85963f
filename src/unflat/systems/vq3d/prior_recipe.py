"""How the prior learns: the next codes from what is known, by cross-entropy.

Raster order knows all codes before each. Masked order draws what is known anew in every step, in
the patterns that sampling and completion meet: coarse codes before fine ones, tokens in any order
within one code; and for a share of the samples pictures that are known but for a rectangle.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from unflat.systems.vq3d.prior import NO_CLASS, SYSTEM, Prior
from unflat.systems.vq3d.prior_config import PriorConfig
from unflat.systems.vq3d.tokens import TokenDataset
from unflat.training.randomness import rand_per_sample

HOLE_SHARE = 0.25  # of training samples: known but for a rectangle
MIXED_SHARE = 0.1  # of training samples: tokens known to unrelated depths
SHEET_STEPS = 4  # passes of sample sheets, for every code of a token

_ORDER_STREAM = 1
_EVERY = 64  # sequences that are judged at once

Decode = Callable[[Int[Tensor, "batch tokens codes"]], Float[Tensor, "batch 3 height width"]]


class TokenBatches:
    """Batches of tokens as a pure function of seed and step; shuffled anew in every epoch.

    Args:
        dataset: tokens.
        batch_size: over all processes.
        seed: of the order.
        rank: which part of a batch this process takes.
        world_size: how many processes share a batch.

    Raises:
        ValueError: the processes can not share a batch equally.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(f"{batch_size} sequences cannot be shared by {world_size} processes")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self._orders: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> dict[str, Tensor]:
        """This process's part of the batch of a step: ``indices`` and ``label``."""
        share = self.batch_size // self.world_size
        start = step * self.batch_size + self.rank * share
        epochs, places = np.divmod(np.arange(start, start + share), len(self.dataset))
        pairs = zip(epochs.tolist(), places.tolist(), strict=True)
        chosen = np.asarray([self._order(epoch)[place] for epoch, place in pairs])
        return self.dataset.batch(chosen)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            generator = np.random.default_rng([self.seed, _ORDER_STREAM, epoch])
            self._orders[epoch] = generator.permutation(len(self.dataset))
            for old in [number for number in self._orders if number < epoch - 1]:
                del self._orders[old]
        return self._orders[epoch]


class PriorRecipe:
    """The prior with its training step.

    Args:
        config: of the network; its facts must be those of the tokens.
        classes: names of the labels.
        fingerprint: of the tokenizer.
        autoencoder: name of the stage-1 model.
        decode: turns tokens into pictures for sample sheets; without it they show first codes.
        validation: tokens that are not trained on; judged every ``validate_every`` steps.
        validate_every: steps.
    """

    def __init__(
        self,
        config: PriorConfig,
        *,
        classes: Sequence[str] = (),
        fingerprint: str = "",
        autoencoder: str = "",
        decode: Decode | None = None,
        validation: TokenDataset | None = None,
        validate_every: int = 50,
    ) -> None:
        self.config = config
        self.model = Prior(config, classes, fingerprint, autoencoder)
        self.networks: nn.Module = self.model
        self.decode, self.validation, self.validate_every = decode, validation, validate_every

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights decay; biases, norms, positions and vectors that are looked up do not."""
        decayed, free = [], []
        for name, parameter in self.model.named_parameters():
            is_decayed = parameter.ndim >= 2 and name.startswith(("trunk.", "to_code."))
            (decayed if is_decayed else free).append(parameter)
        return [{"params": decayed}, {"params": free, "weight_decay": 0.0}]

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """``loss`` in nats, and ``bits`` of a code among those that were to be told."""
        indices, config = batch["indices"], self.config
        numbers = rand_per_sample(batch, (1,), generator).to(indices.device)[:, 0]
        labels = torch.where(numbers < config.label_dropout, NO_CLASS, batch["label"])
        if config.order == "raster":
            errors = raster_errors(self.model, indices, labels)
            return {"loss": errors.mean(), "bits": errors.mean() / math.log(2)}
        depths = draw_depths(batch, config.grid, config.codes, generator).to(indices.device)
        errors = masked_errors(self.model, indices, labels, depths)
        told = (depths < config.codes).sum()
        # Divided by all tokens, not by those told: linear in the samples, so that processes add up.
        return {
            "loss": errors.mean(),
            "bits": errors.sum() / told.clamp_min(1) / math.log(2),
        }

    @torch.no_grad()
    def sample(self, batch: dict[str, Tensor]) -> Float[Tensor, "3 height width"]:
        """Pictures of the batch above ones drawn for the same classes."""
        generator = torch.Generator().manual_seed(0)
        steps = min(SHEET_STEPS * self.config.codes, self.config.tokens * self.config.codes)
        drawn = self.model.sample(batch["label"], generator, steps=steps)
        decode = self.decode or self._first_codes
        rows = [decode(batch["indices"]), decode(drawn)]
        return torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2).clamp(0, 1)

    def after_step(self, step: int) -> dict[str, float]:
        """Bits of a code of unseen pictures, now and then."""
        if self.validation is None or (step + 1) % self.validate_every:
            return {}
        return {"val_bits": bits_per_code(self.model, self.validation, most=4 * _EVERY)}

    def config_json(self) -> dict[str, Any]:
        """System, network, classes and the tokens' maker."""
        return {
            "system": SYSTEM,
            "config": dataclasses.asdict(self.config),
            "classes": self.model.classes,
            "fingerprint": self.model.fingerprint,
            "autoencoder": self.model.autoencoder,
        }

    def _first_codes(self, indices: Tensor) -> Tensor:
        """The first code of every token as a gray cell of 8 x 8 pixels."""
        cells = indices[..., 0].float() / (self.config.codebook_sizes[0] - 1)
        cells = cells.unflatten(1, (self.config.grid, self.config.grid))[:, None]
        return functional.interpolate(cells, scale_factor=8.0).expand(-1, 3, -1, -1)


def draw_depths(
    batch: dict[str, Tensor], grid: int, codes: int, generator: torch.Generator
) -> Int[Tensor, "batch tokens"]:
    """How many codes of every token are known, 0 to ``codes``, as it happens while sampling.

    Within one code a random part of the tokens is ahead by one; few of them more often than many,
    as by MaskGIT's cosine. See the module's text for the other patterns.
    """
    tokens = grid * grid
    numbers = rand_per_sample(batch, (tokens + 8,), generator)
    order, (kind, slot, share, *box, _) = numbers[:, :tokens], numbers[:, tokens:].unbind(1)
    slot = (slot * codes).long()
    ahead = 1 - torch.cos(0.5 * math.pi * share)  # of tokens
    depths = slot[:, None] + (order < ahead[:, None])
    mixed = (order * (codes + 1)).long().clamp_max(codes)
    depths = torch.where((kind < MIXED_SHARE)[:, None], mixed, depths)
    # The rectangle's sides are uniform in 1...grid, and it may hang over the border by half.
    height, width = (1 + (side * grid).floor() for side in box[:2])
    top, left = (place * grid - 0.5 * side for place, side in ((box[2], height), (box[3], width)))
    cells = torch.arange(grid, device=order.device) + 0.5
    rows = (cells > top[:, None]) & (cells < (top + height)[:, None])
    columns = (cells > left[:, None]) & (cells < (left + width)[:, None])
    inside = (rows[:, :, None] & columns[:, None, :]).flatten(1)
    is_hole = (kind > 1 - HOLE_SHARE)[:, None]
    return torch.where(is_hole & ~inside, codes, depths)


def masked_errors(
    prior: Prior,
    indices: Int[Tensor, "batch tokens codes"],
    labels: Int[Tensor, " batch"],
    depths: Int[Tensor, "batch tokens"],
) -> Float[Tensor, "batch tokens"]:
    """Cross-entropy (nats) of each token's first unknown code; 0 where all are known.

    Args:
        prior: of masked order.
        indices: the whole truth.
        labels: `NO_CLASS` hides a class.
        depths: how many codes of each token are known.
    """
    slots = torch.arange(prior.config.codes, device=indices.device)
    table = prior.embedding()
    hidden = prior.hidden(torch.where(slots < depths[..., None], indices, -1), labels, table)
    errors = hidden.new_zeros(depths.shape)
    for slot in range(prior.config.codes):
        told = depths == slot
        logits = prior.logits(hidden[told], slot, table)
        cost = functional.cross_entropy(logits, indices[..., slot][told], reduction="none")
        errors = errors.masked_scatter(told, cost.to(errors.dtype))
    return errors


def raster_errors(
    prior: Prior, indices: Int[Tensor, "batch tokens codes"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, "batch tokens codes"]:
    """Cross-entropy (nats) of every code, given those before it."""
    table = prior.embedding()
    hidden = prior.hidden(indices, labels, table).unflatten(1, (-1, prior.config.codes))
    errors = [
        functional.cross_entropy(
            prior.logits(hidden[:, :, slot], slot, table).flatten(0, 1),
            indices[..., slot].flatten(),
            reduction="none",
        ).view(indices.shape[:2])
        for slot in range(prior.config.codes)
    ]
    return torch.stack(errors, dim=-1)


@torch.no_grad()
def bits_per_code(prior: Prior, tokens: TokenDataset, most: int | None = None) -> float:
    """Bits that the prior needs for a code of these pictures, mean over all codes.

    Raster: of the codes one after the other. Masked: of the codes drawn one by one, coarse ones
    first and tokens in random order within a code, estimated from one random moment of each code
    of every picture; so both bound what storing the pictures would take, and can be compared.

    Args:
        prior: any.
        tokens: of the same tokenizer.
        most: evenly spaced pictures to judge; all if not given. The same ones every time.
    """
    generator = torch.Generator().manual_seed(0)
    places = np.arange(len(tokens))
    if most is not None and most < len(places):
        places = places[np.linspace(0, len(places) - 1, most).astype(int)]
    device, is_training = prior.positions.device, prior.training
    prior.eval()
    total = 0.0
    for start in range(0, len(places), _EVERY):
        batch = tokens.batch(places[start : start + _EVERY])
        indices, labels = batch["indices"].to(device), batch["label"].to(device)
        if prior.config.order == "raster":
            total += float(raster_errors(prior, indices, labels).mean((1, 2)).sum())
        else:
            total += float(_any_order_errors(prior, indices, labels, generator).sum())
    prior.train(is_training)
    return total / len(places) / math.log(2)


def _any_order_errors(
    prior: Prior, indices: Tensor, labels: Tensor, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    """Mean error of a code: for each slot, of the tokens unknown at a uniformly random moment."""
    count, size = prior.config.tokens, indices.shape[0]
    parts = []
    for slot in range(prior.config.codes):
        known = torch.randint(count, (size, 1), generator=generator)
        order = torch.rand(size, count, generator=generator).argsort(1).argsort(1)
        ahead = (order < known).to(indices.device)
        errors = masked_errors(prior, indices, labels, slot + ahead.long())
        unknown = (~ahead).to(errors.dtype)
        parts.append((errors * unknown).sum(1) / unknown.sum(1))
    return torch.stack(parts).mean(0)
