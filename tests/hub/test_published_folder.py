import hashlib
import sys
from types import ModuleType

import pytest

from unflat.errors import UserError
from unflat.hub import published_folder
from unflat.hub.hub_file import hub_file

NEEDED = ("config.json", "preprocessor_config.json", "model.safetensors")


def test_a_folder_is_taken_as_it_is(tmp_path):
    folder = tmp_path / "CLIP-Tiny"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"older")
    older = published_folder(folder)
    assert older.sha256 == hashlib.sha256(b"older").hexdigest()
    (folder / "model.safetensors").write_bytes(b"newer")
    newer = published_folder(str(folder))
    assert newer.sha256 == hashlib.sha256(b"newer").hexdigest()
    assert newer.name == "clip-tiny"
    assert newer.path == folder


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds neither model\.safetensors nor .*; give the"):
        published_folder(tmp_path)


@pytest.mark.parametrize("source", ["nothing.pth", "unknown", "/no/such/folder", "a/b/c", "./a"])
def test_what_is_neither_path_nor_hub_id_is_refused(source):
    with pytest.raises(UserError, match="there is no such file or folder; give a path"):
        published_folder(source)


class EntryNotFoundError(Exception):
    pass


class LocalEntryNotFoundError(EntryNotFoundError, FileNotFoundError):
    pass


class HfHubHTTPError(OSError):
    pass


ERRORS = (EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that gives files of `tmp_path` or raises `fails`, and keeps what was asked."""
    asked = []

    def hf_hub_download(repo_id, filename, local_files_only):
        asked.append((repo_id, filename, local_files_only))
        if fake.fails is not None:
            raise fake.fails
        if not (tmp_path / filename).is_file():
            raise EntryNotFoundError(filename)
        return str(tmp_path / filename)

    fake, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    fake.__dict__.update(hf_hub_download=hf_hub_download, fails=None, asked=asked)
    errors.__dict__.update({kind.__name__: kind for kind in ERRORS})
    for module in (fake, errors):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return fake


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_hub_id_becomes_a_folder(tmp_path, hub, weights):
    for name in (*NEEDED[:2], weights):
        (tmp_path / name).write_bytes(name.encode())
    folder = published_folder("facebook/DINOv2-base", offline=True)
    assert folder.path == tmp_path
    assert folder.name == "dinov2-base"
    assert folder.sha256 == hashlib.sha256(weights.encode()).hexdigest()
    assert {name for _, name, _ in hub.asked} == {*NEEDED, weights}
    assert all(offline for _, _, offline in hub.asked)


def test_what_the_hub_cannot_give_is_said(tmp_path, hub):
    def refused(offline, said):
        with pytest.raises(UserError, match=said) as caught:
            published_folder("a/b", offline=offline)
        assert str(caught.value).startswith("a/b: ")

    refused(False, r"lacks a file .*choose another model")
    hub.fails = LocalEntryNotFoundError()
    refused(True, "--offline is set; give the path")
    refused(False, "the hub cannot be reached; give the path")
    hub.fails = HfHubHTTPError("401 Client Error\nlong")
    refused(False, r"cannot be downloaded \(401 Client Error\); check the name")


def test_a_network_that_is_not_there_is_waited_for_once(tmp_path, hub):
    """An older file that was downloaded before is found all the same."""
    hub.fails = LocalEntryNotFoundError()
    with pytest.raises(UserError, match="the hub cannot be reached"):
        hub_file("a/b", ["x.safetensors", "x.fp16.safetensors", "x.bin"])
    assert [offline for _, _, offline in hub.asked] == [False, True, True]
    hub.fails = None
    (tmp_path / "x.bin").write_bytes(b"")
    assert hub_file("a/b", ["x.safetensors", "x.bin"]) == tmp_path / "x.bin"


def test_the_real_hub_has_these_errors():
    errors = pytest.importorskip("huggingface_hub.errors")
    assert issubclass(errors.LocalEntryNotFoundError, errors.EntryNotFoundError)
    assert issubclass(errors.HfHubHTTPError, OSError)


def test_without_the_hubs_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r'a/b needs the diffusion extra: pip install "unflat\['):
        published_folder("a/b")
