import json

import pytest
import torch

from unflat.errors import UserError
from unflat.training import BrokenCheckpointError, checkpoint, newest_checkpoint, read_checkpoint
from unflat.training.checkpoint import (
    copy_matching,
    load_init,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)


def net_and_optimizer(seed: int = 0):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(
        [{"params": net[0].parameters(), "lr_scale": 0.5}, {"params": net[1].parameters()}], lr=0.1
    )
    return net, optimizer


def save(out, step, net, optimizer=None, keep=3):
    tensors = optimizer_tensors(optimizer, net) if optimizer else {}
    return save_checkpoint(
        out, networks=net, ema=None, optimizer=tensors, state={"step": step}, keep=keep
    )


def advance(net, optimizer):
    optimizer.zero_grad()
    net(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()


def test_optimizer_goes_on_as_if_nothing_was(tmp_path):
    net, optimizer = net_and_optimizer()
    advance(net, optimizer)
    folder = save(tmp_path, 1, net, optimizer)
    other, other_optimizer = net_and_optimizer(seed=1)
    saved = read_checkpoint(folder)
    assert copy_matching(other, saved.weights()) == []
    load_optimizer_tensors(other_optimizer, other, saved.optimizer())
    assert "0.weight.exp_avg" in saved.optimizer()
    advance(net, optimizer)
    advance(other, other_optimizer)
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_crash_while_writing_leaves_the_older_one(tmp_path, monkeypatch):
    net, optimizer = net_and_optimizer()
    save(tmp_path, 1, net, optimizer)
    write = checkpoint._write

    def crash(tensors, path):
        if path.name.startswith("optimizer"):
            raise KeyboardInterrupt
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "_write", crash)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2, net, optimizer)
    found, passed = newest_checkpoint(tmp_path)
    assert found.step == 1
    assert passed == []


def test_folders_that_are_not_whole_are_passed_over_with_a_sentence(tmp_path):
    net, _ = net_and_optimizer()
    for step in (1, 2, 3, 4):
        save(tmp_path, step, net, keep=9)
    folder = tmp_path / "checkpoints"
    (folder / "000004" / "state.json").write_text('{"format": 1, "st')
    weights = folder / "000003" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    (folder / "000002" / "optimizer.safetensors").unlink()
    (folder / "000009.partial").mkdir()
    found, passed = newest_checkpoint(tmp_path)
    assert found.step == 1
    assert len(passed) == 3
    assert all("is not a whole checkpoint" in sentence for sentence in passed)
    with pytest.raises(BrokenCheckpointError):
        read_checkpoint(folder / "000003")
    save(tmp_path, 2, net, keep=2)
    assert sorted(path.name for path in folder.iterdir() if path.suffix == "") == [
        "000001",
        "000002",
    ]


def test_newest_is_by_number_not_by_spelling(tmp_path):
    net, _ = net_and_optimizer()
    for step in (999_999, 1_000_000):
        save(tmp_path, step, net)
    assert newest_checkpoint(tmp_path)[0].step == 1_000_000


def test_a_newer_format_is_refused(tmp_path):
    net, _ = net_and_optimizer()
    path = save(tmp_path, 1, net) / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(UserError, match=r"newer unflat \(format 2, this reads up to 1\)"):
        newest_checkpoint(tmp_path)


def test_init_from_nothing_readable_is_said(tmp_path):
    with pytest.raises(UserError, match="holds no whole checkpoint; give a model file or a run"):
        load_init(tmp_path)
    with pytest.raises(UserError, match="there is no such file"):
        load_init(tmp_path / "model.safetensors")


def test_shared_and_strided_tensors_are_saved(tmp_path):
    net = torch.nn.Module()
    table = torch.nn.Parameter(torch.randn(4, 3))
    net.one, net.two = table, table
    net.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)
    weights = read_checkpoint(save(tmp_path, 1, net)).weights()
    assert torch.equal(weights["two"], table)
    assert torch.equal(weights["turned"], net.turned)
