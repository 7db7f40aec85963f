"""nerf-from-image's encoders against numbers that the published code gave for the same weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from seeded import seeded, seeded_state
from unflat.errors import UserError
from unflat.hub.published_names import filled, renamed
from unflat.nn import published_shapes
from unflat.nn.segformer import MIX_SIZES, MixTransformer, SegFormer
from unflat.systems.inversion import Config, Encoder, build, open_backbone, open_encoder
from unflat.systems.inversion.published import (
    backbone_from_published,
    encoder_from_published,
    segformer_names,
    sizes_of,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "segformer"
B5_NAMES = {
    name: tuple(shape)
    for name, (shape, *_) in json.loads((FIXTURES / "encoder_b5.json").read_text()).items()
}


def close(got: Tensor, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(got, torch.from_numpy(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("shape", "sides"), [("square", (64, 64)), ("oblong", (64, 96))])
def test_the_network_with_small_widths(shape: str, sides: tuple[int, int]) -> None:
    state = seeded_state(FIXTURES / "tiny.json")
    sizes = sizes_of(state, "", "tiny")
    assert (sizes.widths, sizes.depths) == ((8, 16, 40, 64), (2, 1, 3, 1))
    weights = renamed(state, segformer_names(sizes, "", ""), "tiny")
    network = filled(lambda: SegFormer(sizes, 32, 24), weights, "tiny")
    image = seeded(f"segformer.image.{shape}", (2, 3, *sides), std=0.5)
    with np.load(FIXTURES / "tiny.npz") as expected:
        for number, features in enumerate(network.backbone(image)):
            tokens = features.flatten(2).mT
            close(tokens, expected[f"{shape}_stage{number + 1}_tokens"], 1e-5)
        close(network(image), expected[f"{shape}_output"], 1e-5)


def test_every_key_of_the_published_size_has_its_place() -> None:
    state = {name: torch.empty(shape, device="meta") for name, shape in B5_NAMES.items()}
    assert sum(value.numel() for value in state.values()) == 92_609_476
    config, weights = encoder_from_published(state)
    assert config == Config()
    found = {name: value.shape for name, value in weights.items()}
    assert found == published_shapes(lambda: build(config))
    inside = {
        name.removeprefix("backbone."): value
        for name, value in state.items()
        if name.startswith("backbone.") and "linear_" not in name
    }
    classifier = {"head.weight": torch.empty(1000, 512), "head.bias": torch.empty(1000)}
    sizes, weights = backbone_from_published(inside | classifier)
    assert sizes == MIX_SIZES["b5"]
    found = {name: value.shape for name, value in weights.items()}
    assert found == published_shapes(lambda: MixTransformer(sizes))


@pytest.mark.slow
def test_the_encoder_of_the_published_size() -> None:
    config, weights = encoder_from_published(seeded_state(FIXTURES / "encoder_b5.json"))
    encoder = filled(lambda: build(config), weights, "b5")
    image = (seeded("encoder.image", (2, 3, 64, 64), std=0.5) + 1) / 2
    guess = encoder(image)
    features = encoder.trunk(2 * image - 1)
    with np.load(FIXTURES / "encoder_b5.npz") as expected:
        close(guess.points.movedim(1, -1), expected["coords"], 2e-5)
        close(guess.opacity[:, 0], expected["mask"], 2e-5)
        close(guess.w, expected["w"], 2e-5)
        close(features[:, ::8, ::4, ::4], expected["features_sub"], 2e-5)
        close(features.mean((-1, -2)), expected["features_mean"], 2e-5)
    assert guess.log_scale is None


def small_file(path: Path, is_separate: bool = False) -> dict[str, Tensor]:
    """A published checkpoint with heads on the small network's weights; its state."""
    trunk = seeded_state(FIXTURES / "tiny.json")
    heads = {
        "post.0": (20, 24, 3, 3),
        "post.2": (20, 20, 3, 3),
        "post.4": (4, 20, 3, 3),
        "w_regressor_pre.0": (20, 24, 3, 3),
        "w_regressor_post.0": (20, 20),
        "w_regressor_post.2": (12, 20),
    }
    state = {f"backbone.{name}": value for name, value in trunk.items()}
    if is_separate:
        state |= {f"backbone_latent.{name}": value.flip(0) for name, value in trunk.items()}
    for name, shape in heads.items():
        state |= {f"{name}.weight": seeded(name, shape), f"{name}.bias": seeded(name, shape[:1])}
    torch.save({"model_coord": {f"module.{k}": v for k, v in state.items()}, "iteration": 9}, path)
    return state


def test_a_published_checkpoint_becomes_an_encoder(tmp_path: Path) -> None:
    path = tmp_path / "c_it119999_latest.pth"
    state = small_file(path)
    encoder = open_encoder(path)
    assert isinstance(encoder, Encoder)
    assert (encoder.config.features, encoder.config.head_width) == (24, 20)
    assert not encoder.training
    assert not any(weight.requires_grad for weight in encoder.parameters())
    image = seeded("image", (2, 3, 40, 56), std=0.3) / 2 + 0.5
    guess = encoder(image)
    assert guess.points.shape == (2, 3, 40, 56)
    assert guess.w.shape == (2, 12)
    small_file(path, is_separate=True)
    separate = open_encoder(path)
    assert separate.config.is_separate
    both = separate(image)
    torch.testing.assert_close(both.points, guess.points)
    assert (both.w - guess.w).abs().max() > 1e-3
    torch.testing.assert_close(
        separate.code_head.last.weight.detach(), state["w_regressor_post.2.weight"]
    )


def test_a_published_backbone_begins_an_encoder(tmp_path: Path) -> None:
    path = tmp_path / "mit_b5.pth"
    trunk = seeded_state(FIXTURES / "tiny.json")
    backbone = {name: x for name, x in trunk.items() if not name.startswith("linear_")}
    torch.save(backbone | {"head.weight": torch.ones(9, 64), "head.bias": torch.ones(9)}, path)
    opened = open_backbone(path)
    small = Config(backbone=opened.sizes, decoder_width=8, features=8, head_width=8, code_width=8)
    encoder = build(small)
    encoder.trunk.backbone.load_state_dict(opened.state_dict())
    assert all(weight.requires_grad for weight in encoder.parameters())
    with np.load(FIXTURES / "tiny.npz") as expected:
        image = seeded("segformer.image.square", (2, 3, 64, 64), std=0.5)
        last = opened(image)[3].flatten(2).mT
        close(last, expected["square_stage4_tokens"], 1e-5)
        encoder.eval()
        close(
            encoder.trunk.backbone(image)[3].flatten(2).mT.detach(),
            expected["square_stage4_tokens"],
            1e-5,
        )
    with pytest.raises(UserError, match="holds segformer-backbone, no encoder"):
        open_encoder(path)
    small_file(path)
    with pytest.raises(UserError, match="holds nerf-from-image-encoder, no backbone alone"):
        open_backbone(path)


def test_files_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    state = small_file(tmp_path / "c.pth")

    def read(changed: dict[str, Tensor]) -> Encoder:
        config, weights = encoder_from_published(changed, "c.pth")
        return filled(lambda: build(config), weights, "c.pth")

    def refused(changed: dict[str, Tensor], *said: str) -> None:
        with pytest.raises(UserError) as caught:
            read(changed)
        message = str(caught.value)
        assert message.startswith("c.pth: ")
        assert message.endswith("give a file as published.")
        for part in said:
            assert part in message

    def without(name: str) -> dict[str, Tensor]:
        return {key: value for key, value in state.items() if not key.startswith(name)}

    refused(without("post.4.bias"), "lacks post.4.bias")
    refused(without("post.0.weight"), "lacks post.0.weight")
    refused(without("backbone.block3.1."), "lacks backbone.block3.1")
    refused(without("backbone.block2."), "no whole SegFormer", "depths")
    refused(state | {"post.6.weight": torch.ones(1)}, "holds post.6.weight", "no encoder")
    refused(state | {"post.4.weight": torch.ones(5, 20, 3, 3)}, "map_head.last.weight", "shape")
    narrow = torch.ones(41, 16, 3, 3)
    refused(state | {"backbone.patch_embed3.proj.weight": narrow}, "not a multiple of heads")
