import json

import pytest
import torch
from safetensors.torch import save_file

from unflat.errors import UserError
from unflat.training import load_weights, read_header, save_model
from unflat.training.model_file import dequantize_int8, quantize_int8

HEADER = {"system": "tiny", "config": {"width": 3}, "card": {"licence": "CC0"}}


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(80, 70), torch.nn.LayerNorm(70), torch.nn.Linear(70, 2)
    )
    net.register_buffer("count", torch.tensor([3, 4]))
    net.register_buffer("usage", torch.tensor([1e6, 2.0]))
    return net


def test_float16_round_trip(tmp_path):
    net, path = network(), tmp_path / "m.safetensors"
    save_model(path, net, HEADER)
    state, header = load_weights(path)
    assert header["format"] == 1
    assert header["kind"] == "model"
    assert {name: header[name] for name in HEADER} == HEADER
    assert read_header(path) == header
    for name, value in net.state_dict().items():
        assert state[name].dtype == value.dtype
        if name != "usage":
            assert torch.equal(state[name], value.half().float() if name != "count" else value)
    assert torch.equal(state["usage"], net.usage)  # above float16's range


def test_int8_moves_no_weight_by_more_than_half_a_step(tmp_path):
    net, path = network(), tmp_path / "m.safetensors"
    save_model(path, net, HEADER, dtype="int8")
    state, _ = load_weights(path)
    assert set(state) == set(net.state_dict())
    weight = net[0].weight.detach()
    bound = weight.abs().amax(dim=1, keepdim=True) / 127 / 2
    error = (state["0.weight"] - weight).abs()
    assert (error <= bound * (1 + 1e-5)).all()
    assert error.max() > 0
    assert torch.equal(state["2.weight"], net[2].weight.half().float())  # small: float16
    assert path.stat().st_size < 80 * 70 + 70 * 4 + 4 * (70 * 3 + 142) + 1500


def test_quantization_keeps_zero_rows_and_extremes():
    value = torch.tensor([[0.0, 0.0], [1.0, -1.0], [1e-9, 5.0]])
    codes, scale = quantize_int8(value)
    assert codes.dtype == torch.int8
    restored = dequantize_int8(codes, scale)
    assert torch.allclose(restored, value, atol=5 / 254)
    assert torch.equal(restored[0], value[0])


def test_convolutions_are_quantized_by_output_channel():
    value = torch.randn(6, 3, 3, 3) * torch.logspace(-3, 3, 6)[:, None, None, None]
    restored = dequantize_int8(*quantize_int8(value))
    relative = (restored - value).flatten(1).norm(dim=1) / value.flatten(1).norm(dim=1)
    assert relative.max() < 0.01


def test_what_is_no_model_is_said_in_one_sentence(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(UserError, match=r"m.safetensors: there is no such file; give"):
        load_weights(path)
    save_model(path, network(), HEADER)
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="is not a whole safetensors file"):
            load_weights(path)
    path.write_text("hello, this is a letter and no model")
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        load_weights(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="has no unflat header; give a file"):
        load_weights(path)
    save_file({"w": torch.zeros(2)}, path, metadata={"unflat": json.dumps({"format": 3})})
    with pytest.raises(UserError, match=r"newer unflat \(format 3, this reads up to 1\); upgrade"):
        load_weights(path)
    header = json.dumps({"format": 1, "kind": "scene"})
    save_file({"w": torch.zeros(2)}, path, metadata={"unflat": header})
    with pytest.raises(UserError, match="holds a scene, not a model"):
        load_weights(path)


def test_a_name_that_ends_like_a_scale_is_kept(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, {"norm": torch.ones(3), "norm.scale": torch.full((3,), 2.0)}, HEADER)
    state, _ = load_weights(path)
    assert torch.equal(state["norm.scale"], torch.full((3,), 2.0))
