"""``unflat train zero123 --preset paper`` on a miniature of the published networks."""

import json

import pytest
import torch

from box_object import write_objects
from published_views import key_list, tiny_state, write_checkpoint, write_start
from unflat.cli.main import main
from unflat.errors import UserError
from unflat.geometry.relative_pose import RelativePose
from unflat.stored_tensors import StoredTensor
from unflat.systems.zero123 import published_loading
from unflat.systems.zero123.learning import LearningConfig, PublishedLearning, learned_parameters
from unflat.systems.zero123.model import denoise
from unflat.systems.zero123.pipeline import load_view_model
from unflat.systems.zero123.published import PublishedViews
from unflat.systems.zero123.published_files import from_checkpoint
from unflat.systems.zero123.sampler import Sampler, sample
from unflat.systems.zero123.schedule import timesteps
from unflat.training import read_metrics

FEW = (
    *("--preset", "paper", "--batch-size", "4", "--accumulate", "1", "--threads", "1"),
    *("--log-every", "1", "--sample-every", "0", "--device", "cpu", "--quiet"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write_objects(folder / "boxes", train=2, val=1, views=2, side=48)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_start(tmp_path_factory.mktemp("start") / "sd-image-conditioned-v2.ckpt")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("UNFLAT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def trained(data, start, out, *more):
    where = ("--data", str(data), "--out", str(out), "--init", str(start))
    return main(["train", "zero123", *where, *FEW, *more])


def made(model, seed=0):
    """A view, by few steps."""
    image = torch.ones(1, 3, 256, 256)
    image[:, :, 64:192, 96:160] = 0.3
    reference = model.reference(image, torch.ones(1, 256, 256))
    pose = RelativePose.from_degrees(torch.tensor([40.0]), torch.tensor([10.0]))
    condition = model.condition(reference, pose)
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(seed))
    steps = sample(
        lambda x, t: denoise(model, x, t, condition, 3.0),
        model.schedule,
        noise,
        timesteps(3, "trailing"),
        Sampler(),
    )
    with torch.no_grad():
        *_, last = steps
    return last.latent


@pytest.mark.parametrize("lora", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_a_run_goes_on_and_its_file_makes_views(data, start, tmp_path, lora):
    rank = ("--lora", str(lora)) if lora else ()
    assert trained(data, start, tmp_path / "whole", "--steps", "3", *rank) == 0
    assert trained(data, start, tmp_path / "cut", "--steps", "2", *rank) == 0
    goes_on = ("--resume", "--steps", "3", "--quiet")
    assert main(["train", "zero123", "--out", str(tmp_path / "cut"), *goes_on]) == 0
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in ("whole", "cut")]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]
    path = tmp_path / "whole" / "model.safetensors"
    model = load_view_model(path)
    assert isinstance(model, PublishedViews)
    assert model.constants is not None
    assert model.pose_numbers == "relative"
    assert "sd-image-conditioned-v2.ckpt" in model.licence
    plain = load_view_model(tmp_path / "whole", plain_attention=True)
    torch.testing.assert_close(made(model), made(plain), rtol=0, atol=1e-3)
    if lora:
        assert path.stat().st_size < 0.2 * start.stat().st_size


def test_adapters_need_what_they_belong_to(data, start, tmp_path, capsys):
    begin = write_start(tmp_path / "begin.ckpt")
    out = tmp_path / "run"
    assert trained(data, begin, out, "--steps", "1", "--lora", "2") == 0
    wanted = made(load_view_model(out))
    begin.rename(out / "begin.ckpt")  # beside the file
    torch.testing.assert_close(made(load_view_model(out)), wanted)
    (out / "begin.ckpt").unlink()
    capsys.readouterr()
    with pytest.raises(
        UserError, match=r"holds adapters to .*begin\.ckpt, which is not there; put"
    ):
        load_view_model(out)
    assert trained(data, out / "model.safetensors", tmp_path / "other", "--steps", "1") == 2
    assert "holds adapters alone" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_of_zero123_learns_on(data, tmp_path):
    """From a checkpoint, and from the file that a run wrote."""
    first = write_checkpoint(tmp_path / "105000.ckpt", tiny_state())
    assert trained(data, first, tmp_path / "a", "--steps", "1") == 0
    assert trained(data, tmp_path / "a" / "model.safetensors", tmp_path / "b", "--steps", "1") == 0
    run = json.loads((tmp_path / "b" / "run.json").read_text())
    assert run["recipe"]["base"] == str((tmp_path / "a" / "model.safetensors").resolve())
    assert run["train"]["ema_decay"] == 0.9999
    assert run["train"]["betas"] == [0.9, 0.999]


def test_a_plan_says_what_learns(data, start, tmp_path, capsys):
    assert main([
        "train", "zero123", "--data", str(data), "--out", str(tmp_path / "x"), "--preset", "paper",
        "--init", str(start), "--dry-run", "--device", "cpu", "--lora", "4",
    ]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "adapters of rank 4 and first convolution" in said
    assert "would train 105000 steps" in said
    assert not (tmp_path / "x").exists()


def test_the_published_denoiser_has_859_million(monkeypatch, tmp_path):
    """Sizes alone: nothing is read, and nothing takes memory."""

    def unread():
        raise AssertionError("no weight should be read")

    shapes = {
        name: StoredTensor(tuple(shape), torch.float32, unread)
        for name, shape in key_list("keys_full")["shapes"].items()
    }
    found = from_checkpoint(shapes, tmp_path / "full.ckpt")
    monkeypatch.setattr(published_loading, "find_start", lambda _: found)
    counts = []
    for rank in (0, 16):
        model = published_loading.open_training_start(
            tmp_path / "full.ckpt", torch.Generator(), device="meta"
        )
        learning = PublishedLearning(model, LearningConfig(lora=rank))
        counts.append(learned_parameters(learning.network))
    assert round(counts[0]["unet"] / 1e6, 2) == 859.53
    assert counts[0]["cc_projection"] == 593_664
    assert counts[1]["unet"] < 10e6


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--preset", "paper"), "begins with published weights; add --init sd-image-conditioned"),
        (("--lora", "4"), "--lora: belongs to --preset paper"),
        (("--preset", "paper", "--init", "gone.ckpt"), "gone.ckpt: there is no such model"),
    ],
)
def test_what_is_missing_is_said(data, tmp_path, capsys, more, said):
    out = tmp_path / "x"
    assert main(["train", "zero123", "--data", str(data), "--out", str(out), *more]) == 2
    assert said in capsys.readouterr().err
