"""Generators in files: told apart, read without running code, refused with the way on."""

import hashlib
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unflat.errors import UserError
from unflat.hub import read_generator_file
from unflat.hub.generator_files import LICENCES
from unflat.training import save_model

NFI = {"mapping_network.backbone.fc0.weight": torch.ones(2, 2), "alpha": torch.ones(1)}
EG3D = {"backbone.mapping.fc0.weight": torch.ones(2, 2), "decoder.net.0.bias": torch.ones(3)}


def full_checkpoint() -> dict:
    """All that a training script of nerf-from-image leaves in its file."""
    return {
        "model_ema": NFI,
        "model": {"mapping_network.backbone.fc0.weight": torch.zeros(2, 2)},
        "iteration": 300_000,
        "best_fid": np.float64(7.25),
        "fid_untrunc": np.float32(8.0),
        "augment_p": 0.5,
        "lr_g": 0.0025,
        "random_state": {"numpy": np.random.get_state(), "torch": torch.get_rng_state()},  # noqa: NPY002
        "optimizer_g": {"state": {0: {"step": 3}}, "param_groups": [{"betas": (0.0, 0.99)}]},
    }


def refused(path: Path, *said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_generator_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(".")
    for part in said:
        assert part in message


def test_a_checkpoint_with_all_that_training_leaves(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_latest.pth"
    torch.save(full_checkpoint(), path)
    file = read_generator_file(path)
    assert file.system == "nerf-from-image"
    assert file.licence.startswith("Apache-2.0")
    assert file.config == {"iteration": 300_000}
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(file.state["mapping_network.backbone.fc0.weight"], torch.ones(2, 2))
    assert set(file.state) == set(NFI)


def test_numbers_of_an_older_numpy_are_read(tmp_path: Path) -> None:
    """It pickled its functions under other names."""
    torch.save(full_checkpoint(), tmp_path / "new.pth")
    with (
        zipfile.ZipFile(tmp_path / "new.pth") as new,
        zipfile.ZipFile(tmp_path / "old.pth", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core" in content
                content = content.replace(b"cnumpy._core.multi", b"cnumpy.core.multi")
            old.writestr(name.replace("new/", "old/"), content)
    assert read_generator_file(tmp_path / "old.pth").config == {"iteration": 300_000}


def test_an_old_torch_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_latest.pth"
    torch.save(full_checkpoint(), path, _use_new_zipfile_serialization=False)
    assert read_generator_file(path).system == "nerf-from-image"


def test_eg3d_and_what_it_tells(tmp_path: Path) -> None:
    path = tmp_path / "ffhq.pth"
    told = {"init_kwargs": {"z_dim": 512}, "rendering_kwargs": {"box_warp": 1}}
    torch.save({"G_ema": {f"module.{k}": v for k, v in EG3D.items()}, **told}, path)
    file = read_generator_file(path)
    assert file.system == "eg3d-published"
    assert "non-commercial" in file.licence
    assert file.config == told
    assert set(file.state) == set(EG3D)


def test_bare_states_and_safetensors(tmp_path: Path) -> None:
    for state, system in ((NFI, "nerf-from-image"), (EG3D, "eg3d-published")):
        torch.save(state, tmp_path / "a.pth")
        save_file(state, tmp_path / "a.safetensors")
        for name in ("a.pth", "a.safetensors"):
            file = read_generator_file(tmp_path / name)
            assert (file.system, file.config) == (system, {})
            assert file.licence == LICENCES[system]


def test_our_own_models(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {"system": "pigan", "config": {"side": 32}, "card": {"licence": "CC0-1.0"}}
    save_model(path, {"a": torch.ones(3)}, header)
    file = read_generator_file(path)
    assert (file.system, file.config, file.licence) == ("pigan", {"side": 32}, "CC0-1.0")
    assert set(file.state) == {"a"}


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


@pytest.mark.parametrize("content", [{"G_ema": {"a": 1}}, Harmful()], ids=["harmless", "harmful"])
@pytest.mark.parametrize("name", ["ffhq.pkl", "ffhq.pth"])
def test_pickles_are_refused_unopened(tmp_path: Path, content: object, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(content))
    refused(path, "runs code", "docs/formats.md", "give the .pth file")
    if isinstance(content, Harmful):
        with pytest.raises(SystemExit, match="was run"):  # it is what it says
            pickle.loads(path.read_bytes())


def test_code_in_a_torch_file_is_not_run(tmp_path: Path) -> None:
    for number, is_zip in enumerate((True, False)):
        path = tmp_path / f"{number}.pth"
        content = {**full_checkpoint(), "extra": Harmful()}
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        refused(path, "not a whole file of plain weights")


def test_the_page_that_the_message_names_has_the_way() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert "## Weights of others" in page
    assert "G_ema" in page


def test_an_encoder_is_named(tmp_path: Path) -> None:
    torch.save({"model_coord": {"module.backbone.a": torch.ones(1)}}, tmp_path / "c.pth")
    refused(tmp_path / "c.pth", "an encoder", "checkpoint_latest.pth")


def test_what_is_no_generator_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.pth", "there is no such file", "checkpoint_latest.pth")
    refused(tmp_path, "there is no such file")
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "no generator that is known here")
    torch.save([torch.ones(1)], tmp_path / "b.pth")
    refused(tmp_path / "b.pth", "no named weights")
    torch.save({**NFI, "alpha": torch.tensor([float("nan")])}, tmp_path / "c.pth")
    refused(tmp_path / "c.pth", "alpha holds NaN")
    whole = tmp_path / "d.pth"
    torch.save(full_checkpoint(), whole)
    whole.write_bytes(whole.read_bytes()[:-900])
    refused(whole, "not a whole file")
    (tmp_path / "e.safetensors").write_bytes(b"no weights")
    refused(tmp_path / "e.safetensors", "not a whole safetensors file")
