"""Encoders in files: told apart, read without running code, refused with the way on."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unflat.errors import UserError
from unflat.hub import read_encoder_file
from unflat.hub.encoder_files import ENCODER_LICENCES
from unflat.training import save_model

BACKBONE = {"patch_embed1.proj.weight": torch.ones(2, 2), "head.bias": torch.ones(3)}
ENCODER = {f"backbone.{name}": value for name, value in BACKBONE.items()}


def full_checkpoint() -> dict:
    """All that a training script of nerf-from-image leaves in its file."""
    return {
        "model_coord": {f"module.{name}": value for name, value in ENCODER.items()},
        "iteration": 120_000,
        "lr": np.float64(6e-6),
        "random_state": {"numpy": np.random.get_state(), "torch": torch.get_rng_state()},  # noqa: NPY002
        "optimizer_coord": {"state": {0: {"step": 3}}, "param_groups": [{"betas": (0.9, 0.999)}]},
    }


def refused(path: Path, *said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_encoder_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(".")
    for part in said:
        assert part in message


def test_a_checkpoint_with_all_that_training_leaves(tmp_path: Path) -> None:
    path = tmp_path / "c_it119999_latest.pth"
    torch.save(full_checkpoint(), path)
    file = read_encoder_file(path)
    assert (file.system, file.config) == ("nerf-from-image-encoder", {"iteration": 120_000})
    assert file.licence.startswith("Apache-2.0")
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(file.state) == set(ENCODER)


def test_bare_states_and_safetensors(tmp_path: Path) -> None:
    for state, system in (
        (ENCODER, "nerf-from-image-encoder"),
        (BACKBONE, "segformer-backbone"),
    ):
        torch.save(state, tmp_path / "a.pth")
        save_file(state, tmp_path / "a.safetensors")
        for name in ("a.pth", "a.safetensors"):
            file = read_encoder_file(tmp_path / name)
            assert (file.system, file.config) == (system, {})
            assert file.licence == ENCODER_LICENCES[system]
            assert set(file.state) == set(state)


def test_our_own_models(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {"system": "inversion", "config": {"a": 3}, "card": {"licence": "CC0-1.0"}}
    save_model(path, {"a": torch.ones(3)}, header)
    file = read_encoder_file(path)
    assert (file.system, file.config, file.licence) == ("inversion", {"a": 3}, "CC0-1.0")


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    refused(path, "there is no such file", "c_it..._latest.pth")
    for generator in (
        {"model_ema": {"alpha": torch.ones(1)}},
        {"mapping_network.backbone.fc0.weight": torch.ones(1)},
    ):
        torch.save(generator, path)
        refused(path, "holds a generator", "c_it..._latest.pth")
    torch.save({"state_dict": ENCODER}, path)
    refused(path, "no encoder that is known here", "mit_b5.pth")
    torch.save([torch.ones(1)], path)
    refused(path, "no named weights")
    torch.save({**BACKBONE, "head.bias": torch.tensor([float("nan")])}, path)
    refused(path, "head.bias holds NaN")
    path.write_bytes(pickle.dumps(BACKBONE))
    refused(path, "is a pickle", "runs code")
