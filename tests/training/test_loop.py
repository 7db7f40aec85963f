import json
import os
import shutil
import signal
import sys
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
    loop,
    lr_factor,
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
    same = {"steps": 120, "lr": 2e-2, "log_every": 50, "checkpoint_every": 0}
    run(tmp_path / "a", recipe=learned, **same)
    run(tmp_path / "b", recipe=fooled, batches=TinyBatches(shuffled=True), **same)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signals_save_and_raise(tmp_path, number):
    events = []

    def stop_at_seven(event: Event) -> None:
        events.append(event)
        if event.kind == "step" and event.step == 7:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", on_event=stop_at_seven)
    assert signal.getsignal(number) is before
    assert newest_checkpoint(tmp_path / "a")[0].step == 8
    assert read_run(tmp_path / "a")["status"] == "stopped"
    assert "--resume goes on" in events[-1].message
    with pytest.raises(UserError, match="holds an unfinished run; give --resume to continue"):
        run(tmp_path / "a")
    run(tmp_path / "b")
    run(tmp_path / "a", resume=True)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert read_run(tmp_path / "a")["status"] == "finished"


class SlowBatches(TinyBatches):
    """Each batch takes one second of a clock that only this test has."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        self.now += 1.0
        return super().batch(step)


def test_time_limit_ends_the_run_with_a_decayed_learning_rate(tmp_path, monkeypatch):
    batches = SlowBatches()
    monkeypatch.setattr(loop.time, "monotonic", lambda: batches.now)
    settings = {"steps": 10**6, "max_seconds": 20.0, "warmup_steps": 0}
    result = run(tmp_path / "a", batches=batches, **settings)
    assert result.step == 20
    assert result.elapsed == 20.0
    lines = read_metrics(tmp_path / "a")
    for step, line in enumerate(lines):
        assert line["lr"] == pytest.approx(
            1e-2 * lr_factor(step, step / 20, warmup_steps=0, final_fraction=0.01)
        )
    assert read_run(tmp_path / "a")["status"] == "finished"


def test_time_goes_on_where_the_checkpoint_left_it(tmp_path, monkeypatch):
    batches = SlowBatches()
    monkeypatch.setattr(loop.time, "monotonic", lambda: batches.now)
    settings = {"steps": 10**6, "max_seconds": 20.0}

    def stop(event: Event) -> None:
        if event.kind == "step" and event.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", batches=batches, on_event=stop, **settings)
    batches.now = 1000.0
    result = run(tmp_path / "a", batches=batches, resume=True, **settings)
    assert result.step == 20


def test_resuming_what_is_finished_does_nothing_and_more_steps_go_on(tmp_path):
    run(tmp_path / "a")
    result = run(tmp_path / "a", resume=True)
    assert result.step == 40
    assert losses(tmp_path / "a")[40:] == []
    result = run(tmp_path / "a", resume=True, steps=44)
    assert "going on with other settings: steps 40 -> 44" in result.warnings[0]
    assert len(losses(tmp_path / "a")) == 44


def test_another_recipe_is_refused_on_resume(tmp_path):
    run(tmp_path / "a", steps=2)
    with pytest.raises(UserError, match="was begun with another model or config"):
        run(tmp_path / "a", resume=True, recipe=TinyRecipe(noise=0.2))


def test_resume_before_the_first_checkpoint_keeps_the_init(tmp_path):
    run(tmp_path / "start")
    run(tmp_path / "a", init=tmp_path / "start")
    run(tmp_path / "b", init=tmp_path / "start")
    shutil.rmtree(tmp_path / "b" / "checkpoints")
    run(tmp_path / "b", resume=True)
    assert losses(tmp_path / "b") == losses(tmp_path / "a")


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path):
    run(tmp_path / "a", steps=10)
    run(tmp_path / "b", steps=10, accumulate=4)
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "a"), rel=1e-5)
    with pytest.raises(ValueError, match="16 samples can not be cut into 3 equal parts"):
        run(tmp_path / "c", steps=1, accumulate=3)


def test_group_learning_rates_are_scaled(tmp_path):
    """AdamW's first step moves every weight by the learning rate, whatever the gradient."""
    recipe = TinyRecipe()
    before = {name: value.clone() for name, value in recipe.networks.state_dict().items()}
    run(tmp_path / "a", recipe=recipe, steps=1, warmup_steps=0, weight_decay=0.0)
    for name, scale in (("0.weight", 0.5), ("3.weight", 1.0)):
        moved = (recipe.networks.state_dict()[name] - before[name]).abs()
        assert float(moved.median()) == pytest.approx(1e-2 * scale, rel=1e-2)


def test_gradients_are_clipped(tmp_path):
    recipe = TinyRecipe()
    norms = []
    recipe.networks[0].weight.register_hook(lambda gradient: gradient * 1e3)
    optimizer_step = torch.optim.AdamW.step

    def watch(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        return optimizer_step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watch)
        run(tmp_path / "a", recipe=recipe, steps=3, clip_norm=0.25)
    assert norms == pytest.approx([0.25] * 3, rel=1e-3)
    assert all(line["grad_norm"] > 1 for line in read_metrics(tmp_path / "a"))


def test_bfloat16_learns_as_well(tmp_path):
    recipe = TinyRecipe()
    run(tmp_path / "a", recipe=recipe, precision="bf16", steps=150)
    figures = losses(tmp_path / "a")
    assert sum(figures[-10:]) < 0.5 * sum(figures[:10])
    assert all(p.dtype == torch.float32 for p in recipe.networks.parameters())


def test_sample_sheets_show_the_average(tmp_path):
    recipe = TinyRecipe()
    shown = []
    sample = recipe.sample

    def watch(batch):
        shown.append(recipe.networks.state_dict()["0.weight"].clone())
        assert not recipe.networks.training
        return sample(batch)

    recipe.sample = watch
    run(tmp_path / "a", recipe=recipe, steps=10, sample_every=10)
    checkpoint = newest_checkpoint(tmp_path / "a")[0]
    assert torch.equal(shown[0], checkpoint.ema()["0.weight"])
    assert not torch.equal(shown[0], checkpoint.weights()["0.weight"])
    assert recipe.networks.training


def test_no_average_is_kept_without_decay(tmp_path):
    run(tmp_path / "a", steps=3, ema_decay=0.0, sample_every=3)
    assert newest_checkpoint(tmp_path / "a")[0].ema() is None


def test_means_of_unequal_windows_survive_a_restart(tmp_path):
    """Checkpoints at 10 and 20 fall inside the windows of 7 steps."""
    run(tmp_path / "a", log_every=7, steps=28)
    run(tmp_path / "b", log_every=7, steps=28)
    (tmp_path / "b" / "checkpoints" / "000028" / "state.json").unlink()
    run(tmp_path / "b", log_every=7, steps=28, resume=True)
    assert losses(tmp_path / "b") == losses(tmp_path / "a")


def test_out_of_memory_says_what_to_lower(tmp_path):
    recipe = TinyRecipe()

    def step(batch, progress, generator):
        raise torch.OutOfMemoryError("tried to allocate 3 TiB")

    recipe.step = step
    with pytest.raises(UserError, match=r"out of GPU memory at batch size 16; .*--accumulate 2"):
        run(tmp_path / "a", recipe=recipe)


def test_missing_accelerate_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UserError, match=r'needs the train extra: pip install "unflat\[train\]"'):
        run(tmp_path / "a")


def test_missing_cuda_is_said(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UserError, match="--device cuda: no CUDA device was found; use --device"):
        run(tmp_path / "a", device="cuda")


def test_a_folder_that_can_not_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can not be written to; choose another --out"):
        run(tmp_path / "file" / "a")


def test_piped_progress_is_plain_lines(tmp_path, capsys):
    train(TinyRecipe(), TinyBatches(), config(steps=4, log_every=2), tmp_path / "a")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\r" not in captured.err
    assert "\x1b" not in captured.err
    lines = captured.err.splitlines()
    assert lines[1].startswith("step 2  loss ")
    assert lines[-1].endswith("all saved")


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"ema_decay": 1.0}, {"max_seconds": -1.0}, {"accumulate": 0}]
)
def test_config_refuses_what_can_not_be(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        TrainConfig(**changes)


def test_config_goes_to_json_and_back():
    one = config(betas=(0.8, 0.95), max_seconds=60.0, threads=1)
    assert TrainConfig.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert TrainConfig.from_json({**one.to_json(), "of_the_future": 1}) == one
