import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from unflat.errors import UserError
from unflat.stored_tensors import stored_tensors

STATE = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "b": torch.tensor([1, 2, 3], dtype=torch.int32),
    "half": torch.tensor([[0.5, -2.0]], dtype=torch.float16),
    "brain": torch.tensor([3.0, 1e20], dtype=torch.bfloat16),
    "number": torch.tensor(105000),
    "empty": torch.zeros(0, 4),
}


def same(found, state):
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].shape == tuple(value.shape)
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name].read(), value, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt", "old.pth"])
def test_every_kind_of_file_gives_what_was_saved(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".safetensors"):
        save_file(STATE, path, metadata={"format": "pt"})
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=name != "old.pth")
    same(stored_tensors(path, "give one"), STATE)


def test_weights_are_found_in_a_checkpoint(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": STATE, "global_step": 3, "optimizer_states": [torch.ones(4)]}, path)
    same(stored_tensors(path, "give one"), STATE)


def test_views_and_parameters_are_read_as_they_are(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    state = {
        "turned": whole.T,
        "cut": whole[1:3, 2:5],
        "wide": whole[:1].expand(3, 6),
        "parameter": torch.nn.Parameter(whole),
    }
    path = tmp_path / "x.pt"
    torch.save(state, path)
    found = stored_tensors(path, "give one")
    for name, value in state.items():
        torch.testing.assert_close(found[name].read(), value.detach(), rtol=0, atol=0)


class Callback:
    """As a training loop leaves beside the weights."""

    def __init__(self):
        self.best = {"loss": 0.1}


class Program:
    """Writes a file when it is unpickled by torch or pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Listing(list):
    """A container of a kind of its own."""


def test_nothing_of_a_file_runs(tmp_path):
    """What is no tensor becomes nothing; weights beside it are read."""
    path, trace = tmp_path / "x.ckpt", tmp_path / "ran"
    extra = {
        "callbacks": {Callback: Callback(), "made": Program(trace)},
        "loops": [Program(trace), Listing([1, 2])],
    }
    torch.save({"state_dict": {**STATE, "other": Callback()}, **extra}, path)
    same(stored_tensors(path, "give one"), STATE)
    assert not trace.exists()
    with zipfile.ZipFile(path) as archive:  # the file does hold the program
        program = archive.read("x/data.pkl")
    assert b"mkdir" in program


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"a": torch.arange(4.0)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    program = members["x/data.pkl"]
    shape = pickle.dumps((4,), protocol=2)[2:-3]  # of the size, as the file has it
    assert program.count(shape) == 1
    members["x/data.pkl"] = program.replace(shape, pickle.dumps((9,), protocol=2)[2:-3])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="is not a whole file of weights; copy or download"):
        stored_tensors(path, "give one")


@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_cut_file_is_refused(tmp_path, name, share):
    path = tmp_path / name
    state = {"a": torch.randn(100, 100)}
    if name.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"is not a whole file of (plain )?weights; .*download it"):
        stored_tensors(path, "give one")


def test_what_holds_no_weights_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    with pytest.raises(UserError, match="there is no such file; give one"):
        stored_tensors(path, "give one")
    torch.save([torch.ones(2)], path)
    with pytest.raises(UserError, match="holds no named weights; give one"):
        stored_tensors(path, "give one")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no")
    with pytest.raises(UserError, match="holds no weights that torch has saved; give one"):
        stored_tensors(path, "give one")


def test_code_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(STATE, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/code/__torch__.py", "no")
    with pytest.raises(UserError, match="holds code"):
        stored_tensors(path, "give one")
