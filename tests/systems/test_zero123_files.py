"""What files of Zero-1-to-3 hold, and what is said of those that are something else."""

import json
import math
import shutil
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from published_views import (
    averaged,
    key_list,
    tiny_state,
    write_checkpoint,
    write_folder,
)
from unflat.errors import UserError
from unflat.hub import PUBLISHED_VIEWS
from unflat.stored_tensors import StoredTensor
from unflat.systems.zero123.compvis_names import place, present_name
from unflat.systems.zero123.networks import build, check, fill
from unflat.systems.zero123.one_token import fold_attention
from unflat.systems.zero123.pipeline import load_view_model
from unflat.systems.zero123.published import PublishedViews
from unflat.systems.zero123.published_files import find_start, find_weights, from_checkpoint
from unflat.systems.zero123.published_loading import open_published, open_training_start

UNET = "model.diffusion_model."
CHANGES = {
    "copy": "copy",
    "transpose": "transpose",
    "split in 3 along dim 0": "thirds",
    "drop 1x1": "flat",
}


def unread():
    raise AssertionError("no weight should be read")


def stored(shapes):
    """Tensors of which only the shape is known."""
    return {name: StoredTensor(tuple(s), torch.float32, unread) for name, s in shapes.items()}


def test_names_follow_the_published_list():
    for key, (names, change) in key_list("keymap_diffusers")["map"].items():
        found = place(key)
        assert found is not None, key
        ours = [names] if isinstance(names, str) else names
        assert list(found.names) == [name.removeprefix("projection.") for name in ours]
        assert found.change == CHANGES[change]
    assert place("cond_stage_model.model.token_embedding.weight") is None
    assert place("betas") is None


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_networks_have_the_weights_of_the_key_lists(size):
    """Names and shapes, each and all; the sizes are told by the shapes alone."""
    shapes = key_list(f"keys_{size}")["shapes"]
    found = from_checkpoint(stored(shapes), Path("x.ckpt"))
    networks = {part: build(part, found.parts[part], "x") for part in found.parts}
    for part, network in networks.items():
        check(part, network, found.parts[part], "x")
    counts = {
        part: sum(value.numel() for value in network.parameters())
        for part, network in networks.items()
    }
    wide = {"unet": UNET, "vae": "first_stage_model.", "cc_projection": "cc_projection."}
    wide["image_encoder"] = "cond_stage_model.model.visual."
    for part, prefix in wide.items():
        named = [shape for name, shape in shapes.items() if name.startswith(prefix)]
        assert counts[part] == sum(math.prod(shape) for shape in named)
    if size == "full":
        assert counts["unet"] == 859_532_484
        assert counts["vae"] == 83_653_863
        assert counts["image_encoder"] == 303_966_208
        assert counts["cc_projection"] == 593_664
        assert networks["image_encoder"].config.num_attention_heads == 16
        constants = fold_attention(networks["unet"])
        assert constants.weight.shape == (12_480, 768)
        assert len(constants.widths) == 16
        folded = sum(value.numel() for value in networks["unet"].parameters())
        assert counts["unet"] - folded == pytest.approx(44.0e6, abs=0.1e6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder") / "views", tiny_state(), "cc_projection")


@pytest.fixture(scope="module")
def slim():
    """The tiny model without the moving average, as some files are."""
    return {name: v for name, v in tiny_state().items() if not name.startswith("model_ema.")}


def test_without_a_moving_average_the_last_weights_are_used(tmp_path, slim):
    path = write_checkpoint(tmp_path / "slim.safetensors", slim)
    told = []
    model = load_view_model(path, plain_attention=True, tell=told.append)
    assert isinstance(model, PublishedViews)
    weight = model.unet.conv_out.weight
    torch.testing.assert_close(weight, slim[f"{UNET}out.2.weight"], rtol=0, atol=0)
    assert told[0].startswith(f"{path}: licence not told by the file: Zero-1-to-3's is Creative")
    assert told[1:] == [f"{path}: holds no moving average of the weights; the last ones are used"]


def test_the_moving_average_comes_first(tmp_path):
    path = write_checkpoint(tmp_path / "x.ckpt", tiny_state())
    found = find_weights(path)
    assert not found.notices
    wanted = tiny_state()[averaged(f"{UNET}out.2.weight")]
    torch.testing.assert_close(found.parts["unet"]["conv_out.weight"].read(), wanted)


def test_reading_holds_one_tensor_at_a_time(tmp_path, slim):
    """Numbers as read, in half precision, are let go before the next ones come."""
    weights = find_weights(write_checkpoint(tmp_path / "x.ckpt", slim)).parts["unet"]
    network = build("unet", weights, "x")
    largest = max(math.prod(value.shape) * 4 for value in weights.values())
    total = sum(math.prod(value.shape) * 4 for value in weights.values())
    tracemalloc.start()
    try:
        fill(network, weights, torch.device("cpu"), torch.float16, "x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert largest <= peak < largest + 0.1 * total


def test_older_names_of_the_autoencoder_are_read(tmp_path, folder):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    path = tmp_path / "old"
    shutil.copytree(folder, path)
    file = path / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    renamed = {}
    for name, value in state.items():
        before = name
        for new, word in old.items():
            before = before.replace(f".attentions.0.{new}.", f".attentions.0.{word}.")
        assert present_name(before) == name
        renamed[before] = value
    assert renamed.keys() != state.keys()
    save_file(renamed, file)
    found = find_weights(path)
    check("vae", build("vae", found.parts["vae"], "x"), found.parts["vae"], "x")


def refused(path, said, **options):
    with pytest.raises(UserError, match=said) as caught:
        open_published(path, **options)
    assert str(caught.value).startswith(str(path))


def test_other_models_are_named(tmp_path, slim):
    path = tmp_path / "x.ckpt"
    blind = {name: v for name, v in slim.items() if not name.startswith("cond_stage_model")}
    for tower in ("cond_stage_model.transformer.", "cond_stage_model.model.transformer."):
        write_checkpoint(path, {**blind, f"{tower}ln.bias": torch.zeros(4)})
        refused(path, r"is a text-to-image model, which is told words .*; give a checkpoint of Z")
    no_pose = {name: v for name, v in slim.items() if not name.startswith("cc_projection")}
    write_checkpoint(path, no_pose)
    refused(path, "has no cc_projection, so that it cannot be told a pose; give a checkpoint")
    first = f"{UNET}input_blocks.0.0.weight"
    write_checkpoint(path, {**no_pose, first: slim[first][:, :4].clone()})
    refused(path, "makes variations of a picture and knows no poses; training can begin from it")
    write_checkpoint(path, {**slim, first: slim[first][:, :4].clone()})
    refused(path, "denoiser sees 4 channels where Zero-1-to-3's sees 8")
    torch.save({"state_dict": {"generator.weight": torch.ones(3)}}, path)
    refused(path, "holds no denoiser under the authors' names; give a checkpoint of Zero-1-to-3")


def misfit(state, part, said):
    """A file of this state is refused for a part of it, before a weight is read."""
    shapes = {name: value.shape for name, value in state.items()}

    def fit():
        weights = from_checkpoint(stored(shapes), Path("x.ckpt")).parts[part]
        check(part, build(part, weights, "x.ckpt"), weights, "x.ckpt")

    with pytest.raises(UserError, match=said) as caught:
        fit()
    assert str(caught.value).startswith("x.ckpt: ")


def test_what_is_cut_or_changed_is_named(slim):
    def without(prefix):
        return {name: value for name, value in slim.items() if not name.startswith(prefix)}

    lost = without(f"{UNET}middle_block.2.out_layers.3.weight")
    misfit(lost, "unet", r"lacks mid_block.resnets.1.conv2.weight of the denoiser, so that it is")
    lost = without("first_stage_model.encoder.conv_in.weight")
    misfit(lost, "vae", "lacks encoder.conv_in.weight of the autoencoder, so that it is cut")
    lost = without("cond_stage_model.model.visual.ln_post")
    misfit(lost, "image_encoder", "lacks vision_model.post_layernorm.bias of the CLIP tower")
    whole = {n: v for n, v in tiny_state().items() if n != averaged(f"{UNET}out.2.bias")}
    misfit(whole, "unet", "lacks model_ema.diffusion_modelout2bias, so that it is cut; download")
    name = "first_stage_model.encoder.mid.block_1.conv1.weight"
    said = "encoder.mid_block.resnets.0.conv1.weight of the autoencoder is .* where the others"
    misfit({**slim, name: slim[name][:16]}, "vae", said)
    name = "first_stage_model.encoder.mid.attn_1.q.weight"
    misfit({**slim, name: slim[name][0]}, "vae", "attn_1.q.weight is of shape .*, which no such")
    more = {**slim, "first_stage_model.encoder.extra.weight": slim[name]}
    misfit(more, "vae", "holds encoder.extra.weight, which no autoencoder of its kind has; give")


def test_damage_is_named(tmp_path, slim):
    path = tmp_path / "x.ckpt"
    write_checkpoint(path, {n: v for n, v in slim.items() if "first_stage" not in n})
    refused(path, "holds no vae, so that it is cut")
    write_checkpoint(path, {n: v for n, v in slim.items() if "input_blocks.0.0" not in n})
    refused(path, "holds no conv_in.weight of a denoiser")
    name = f"{UNET}time_embed.0.weight"
    write_checkpoint(path, {**slim, name: slim[name] * float("nan")})
    refused(path, "time_embedding.linear_1.weight holds NaN or infinity; download the file again")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "is not a whole file of .*weights")


def test_folders_that_are_something_else_are_named(tmp_path, folder):
    refused(tmp_path, "holds no folder unet; give a checkpoint")
    path = tmp_path / "views"
    shutil.copytree(folder, path)
    scheduler = path / "scheduler"
    scheduler.mkdir()
    settings = scheduler / "scheduler_config.json"
    settings.write_text(json.dumps({"prediction_type": "v_prediction"}), encoding="utf-8")
    refused(path, "predicts v_prediction where Zero-1-to-3 predicts noise")
    settings.write_text(json.dumps({"prediction_type": "epsilon"}), encoding="utf-8")
    (path / "text_encoder").mkdir()
    refused(path, "is a text-to-image model")
    (path / "text_encoder").rmdir()
    shutil.rmtree(path / "cc_projection")
    refused(path, "has no cc_projection")
    (path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    refused(path, "unet: holds no file of weights; copy or download the whole model again")


def test_training_begins_from_image_variations(tmp_path, slim):
    """As the authors': zeros for the picture, the embedding as it is, a little of the pose."""
    first = f"{UNET}input_blocks.0.0.weight"
    begin = {name: v for name, v in slim.items() if not name.startswith("cc_projection")}
    begin[first] = slim[first][:, :4].clone()
    path = write_checkpoint(tmp_path / "sd-image-conditioned-v2.ckpt", begin)
    model = open_training_start(path, torch.Generator().manual_seed(0))
    weight = model.unet.conv_in.weight
    torch.testing.assert_close(weight[:, :4].detach(), begin[first])
    assert weight.shape[1] == 8
    assert not weight[:, 4:].any()
    projection = model.projection
    torch.testing.assert_close(projection.weight[:, :16].detach(), torch.eye(16))
    pose = projection.weight[:, 16:].detach()
    assert 0.8 * 20**-0.5 < float(pose.abs().max()) <= 20**-0.5
    assert not projection.bias.any()
    assert projection.weight.requires_grad
    assert weight.requires_grad
    assert not model.clip.visual_projection.weight.requires_grad
    # what is beside the noisy latent changes nothing yet
    noisy = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    token = torch.ones(1, 1, 16)
    with torch.no_grad():
        said = [
            model.unet(torch.cat([noisy, beside], 1), torch.tensor([500]), token).sample
            for beside in (torch.zeros_like(noisy), noisy)
        ]
    torch.testing.assert_close(*said, rtol=0, atol=1e-5)
    # a model that sees both already learns on as it is
    other = write_checkpoint(tmp_path / "views.ckpt", slim)
    assert find_start(other).channels == 8
    kept = open_training_start(other, torch.Generator()).projection.weight
    torch.testing.assert_close(kept.detach(), slim["cc_projection.weight"])


def test_stable_zero123_is_not_guessed(tmp_path, slim):
    path = write_checkpoint(tmp_path / "stable_zero123.ckpt", slim)
    with pytest.raises(UserError, match=r"is Stable Zero123 by its name, .*; add --pose stable"):
        load_view_model(path)
    model = load_view_model(path, pose_numbers="stable")
    assert isinstance(model, PublishedViews)
    assert model.pose_numbers == "stable"


def test_a_name_brings_what_is_known_of_it(tmp_path, slim, monkeypatch):
    path = write_checkpoint(tmp_path / "file.ckpt", slim)
    asked = []

    def hub_file(hub_id, names, *, offline):
        asked.append((hub_id, *names, offline))
        return path

    monkeypatch.setattr("unflat.hub.view_models.hub_file", hub_file)
    told = []
    model = load_view_model("stable-zero123", offline=True, tell=told.append)
    assert asked == [("stabilityai/stable-zero123", "stable_zero123.ckpt", True)]
    assert isinstance(model, PublishedViews)
    assert model.pose_numbers == "stable"
    assert model.name == "stable-zero123"
    assert told[0] == f"stable-zero123: licence {PUBLISHED_VIEWS['stable-zero123'].licence}"


def test_without_the_extra_it_is_named(tmp_path, slim, monkeypatch):
    import sys

    path = write_checkpoint(tmp_path / "x.ckpt", slim)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r'needs the diffusion extra: pip install "unflat\[diff'):
        open_published(path)
