import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_recipe import TinyBatches, TinyRecipe

from unflat.errors import UserError
from unflat.training import (
    Event,
    TrainConfig,
    load_init,
    newest_checkpoint,
    read_metrics,
    read_run,
    save_model,
    train,
)


def config(**changes) -> TrainConfig:
    settings = {
        "steps": 40,
        "batch_size": 16,
        "lr": 1e-2,
        "warmup_steps": 5,
        "log_every": 1,
        "sample_every": 0,
        "checkpoint_every": 10,
        "device": "cpu",
        "tensorboard": False,
    }
    return TrainConfig(**(settings | changes))


def silent(event: Event) -> None:
    del event


def run(
    out: Path, *, recipe=None, batches=None, resume=False, init=None, on_event=silent, **changes
):
    return train(
        recipe or TinyRecipe(),
        batches or TinyBatches(),
        config(**changes),
        out,
        resume=resume,
        init=init,
        on_event=on_event,
    )


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(out)]


def test_learns_what_can_be_learned_only(tmp_path):
    """Mean y^2 is about 0.17; shuffled labels can not go below that, a trained net does."""
    bound = 0.05
    untrained = TinyRecipe(noise=0.0)
    batch = TinyBatches(512).batch(10**6)

    def error(recipe):
        with torch.no_grad():
            return float(recipe.step(batch, 0.0, torch.Generator())["error"])

    assert error(untrained) > 2 * bound
    learned, fooled = TinyRecipe(noise=0.0), TinyRecipe(noise=0.0)
    run(tmp_path / "a", recipe=learned, steps=300, log_every=50, checkpoint_every=0)
    run(
        tmp_path / "b",
        recipe=fooled,
        batches=TinyBatches(shuffled=True),
        steps=300,
        log_every=50,
        checkpoint_every=0,
    )
    assert error(learned) < bound
    assert error(fooled) > 2 * bound


def test_run_folder_holds_what_the_page_says(tmp_path):
    out = tmp_path / "a"
    result = run(out, sample_every=20, log_every=10, keep=2)
    assert read_run(out)["status"] == "finished"
    assert TrainConfig.from_json(read_run(out)["train"]) == config(
        sample_every=20, log_every=10, keep=2
    )
    assert read_run(out)["recipe"]["system"] == "tiny-regression"
    assert [line["step"] for line in read_metrics(out)] == [10, 20, 30, 40]
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"000030", "000040"}
    assert {path.name for path in (out / "samples").iterdir()} == {"000020.png", "000040.png"}
    with Image.open(out / "samples" / "000040.png") as sheet:
        assert sheet.size == (8, 4)
    assert result.step == 40
    assert result.checkpoint == out / "checkpoints" / "000040"


def test_resume_gives_the_same_losses_and_weights(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    first, second = TinyRecipe(dropout=0.2), TinyRecipe(dropout=0.2, seed=5)
    run(whole, recipe=first)
    run(parts, recipe=TinyRecipe(dropout=0.2))
    for step in ("000030", "000040"):  # as if killed after step 29
        (parts / "checkpoints" / step / "state.json").unlink()
    result = run(parts, recipe=second, resume=True)
    assert losses(parts) == losses(whole)
    assert len(result.warnings) == 2
    for name, value in first.networks.state_dict().items():
        assert torch.equal(value, second.networks.state_dict()[name])


def test_used_folders_are_refused(tmp_path):
    out = tmp_path / "a"
    run(out, steps=2)
    with pytest.raises(UserError, match="holds a finished run; give --resume to continue it or"):
        run(out)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run; choose another --out"):
        run(tmp_path / "b")
    with pytest.raises(UserError, match="holds no run; drop --resume"):
        run(tmp_path / "c", resume=True)


def test_init_takes_what_fits_and_names_the_rest(tmp_path):
    run(tmp_path / "a")
    averaged = load_init(tmp_path / "a")
    ema = newest_checkpoint(tmp_path / "a")[0].ema()
    assert all(torch.equal(averaged[name], ema[name]) for name in ema)
    recipe = TinyRecipe(seed=3)
    recipe.networks[5] = torch.nn.Linear(32, 1, bias=False)
    result = run(tmp_path / "b", recipe=recipe, init=tmp_path / "a", steps=1, lr=1e-9)
    assert torch.allclose(recipe.networks[0].weight, averaged["0.weight"], atol=1e-6)
    assert result.warnings == ()
    other = TinyRecipe()
    other.networks[0] = torch.nn.Linear(2, 32, bias=False)
    other.networks[5] = torch.nn.Linear(32, 1)
    save_model(tmp_path / "m.safetensors", {"0.weight": torch.zeros(32, 2)}, {"system": "x"})
    result = run(tmp_path / "c", recipe=other, init=tmp_path / "m.safetensors", steps=1)
    assert "5.weight: not in the file" in result.warnings[0]
    save_model(tmp_path / "n.safetensors", {"head": torch.zeros(3)}, {"system": "x"})
    with pytest.raises(UserError, match="none of its tensors fits"):
        run(tmp_path / "d", init=tmp_path / "n.safetensors")


def test_metrics_are_json_with_rate_and_learning_rate(tmp_path):
    run(tmp_path / "a", steps=3)
    line = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"step", "loss", "error", "seen", "lr", "grad_norm", "elapsed"} <= set(line)
