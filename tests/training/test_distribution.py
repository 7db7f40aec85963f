import pytest
import torch

from unflat.training import distribution, mean_over_processes, process_rank
from unflat.training.distribution import (
    gather_over_processes,
    largest_over_processes,
    refuse_drift,
)
from unflat.training.means import RunningMeans


def test_rank_comes_from_the_launcher(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert process_rank() == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert process_rank() == (3, 8)


def test_one_process_agrees_with_itself():
    assert largest_over_processes([0.0, 2.0], torch.device("cpu")) == [0.0, 2.0]
    assert torch.equal(mean_over_processes(torch.tensor([1.0, 3.0])), torch.tensor([1.0, 3.0]))
    assert gather_over_processes({"a": 1}) == [{"a": 1}]
    refuse_drift(torch.nn.Linear(2, 2), 5)


@pytest.mark.parametrize("difference", [0.0, 1e-3])
def test_drifted_weights_are_named(monkeypatch, difference):
    """The other process is played by the reduction: its bias differs."""

    def reduce(sums, op):
        other = sums + torch.tensor([0.0, difference])
        chosen = torch.minimum if op == distribution.distributed.ReduceOp.MIN else torch.maximum
        sums.copy_(chosen(sums, other))

    monkeypatch.setattr(distribution, "_is_shared", lambda: True)
    monkeypatch.setattr(distribution.distributed, "all_reduce", reduce)
    net = torch.nn.Linear(2, 2)
    if difference:
        with pytest.raises(RuntimeError, match="different weights after step 7: bias; Recipe"):
            refuse_drift(net, 7)
    else:
        refuse_drift(net, 7)


def test_means_are_over_processes_and_over_what_is_there(monkeypatch):
    means = RunningMeans()
    means.add({"loss": torch.tensor(1.0)})
    means.add({"loss": torch.tensor(2.0), "rare": torch.tensor(5.0)})
    other = {"loss": (9.0, 2), "only there": (4.0, 1)}
    monkeypatch.setattr("unflat.training.means.gather_over_processes", lambda own: [own, other])
    assert means.take() == {"loss": 3.0, "rare": 5.0, "only there": 4.0}
    monkeypatch.setattr("unflat.training.means.gather_over_processes", lambda own: [own])
    assert means.take() == {}
