import math

import numpy as np
import pytest
import torch

from unflat.metrics import CodeCounts


def test_closed_forms():
    counts = CodeCounts((8,))
    assert (counts.usage, counts.perplexity, counts.total) == (0, 0, 0)
    counts.add(torch.tensor([[[0], [1]], [[2], [3]]]))
    assert counts.usage == 0.5
    assert counts.perplexity == pytest.approx(4)
    counts.add(torch.zeros(1, 4, 1, dtype=torch.long))
    assert counts.total == 8
    shares = [5 / 8, 1 / 8, 1 / 8, 1 / 8]
    assert counts.perplexity == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))


def test_slots_are_counted_apart_and_batches_add_up():
    generator = torch.Generator().manual_seed(0)
    sizes = (16, 5, 300)
    indices = torch.stack(
        [torch.randint(size, (6, 10), generator=generator) for size in sizes], dim=-1
    )
    counts = CodeCounts(sizes)
    for part in indices.split(2):
        counts.add(part)
    entropies = []
    for slot, size in enumerate(sizes):
        shares = np.bincount(indices[..., slot].flatten().numpy(), minlength=size) / 60
        entropies.append(-sum(p * math.log(p) for p in shares if p > 0))
    assert counts.perplexity == pytest.approx(np.mean(np.exp(entropies)))
    slow = [len(set(indices[..., i].flatten().tolist())) / size for i, size in enumerate(sizes)]
    assert counts.usage == pytest.approx(sum(slow) / 3)


def test_wrong_indices_are_refused():
    with pytest.raises(ValueError, match="outside"):
        CodeCounts((4,)).add(torch.tensor([[4]]))
    with pytest.raises(ValueError, match="outside"):
        CodeCounts((4,)).add(torch.tensor([[-1]]))
    with pytest.raises(ValueError, match="2 codes, not 1"):
        CodeCounts((4,)).add(torch.tensor([[1, 1]]))
