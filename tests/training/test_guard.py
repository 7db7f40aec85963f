import pytest
import torch
from test_loop import run
from tiny_recipe import TinyBatches, TinyRecipe

from unflat.errors import UserError
from unflat.training import Ema, newest_checkpoint, read_metrics, read_run
from unflat.training.guard import LastGood


class BadBatches(TinyBatches):
    """Some steps' losses are multiplied by a number that is none."""

    def __init__(self, bad: set[int], value: float = float("nan")) -> None:
        super().__init__()
        self.bad, self.value = bad, value

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        scale = self.value if step in self.bad else 1.0
        return super().batch(step) | {"scale": torch.full((16,), scale)}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_batch_is_skipped_and_said(tmp_path, value):
    events = []
    recipe = TinyRecipe()
    result = run(
        tmp_path / "a",
        recipe=recipe,
        batches=BadBatches({13}, value),
        on_event=events.append,
        guard_every=4,
        checkpoint_every=0,
    )
    assert len(result.warnings) == 1
    assert "step 13: loss" in result.warnings[0]
    assert "went back to the weights after step 12" in result.warnings[0]
    assert [event.kind for event in events].count("warning") == 1
    lines = read_metrics(tmp_path / "a")
    skipped = [line for line in lines if "skipped" in line]
    assert [(line["step"], line["restored_step"]) for line in skipped] == [(14, 12)]
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert all(torch.isfinite(p).all() for p in recipe.networks.parameters())
    assert float(recipe.networks.get_buffer("seen")) == 38  # 40 less the bad one and step 12


def test_guard_goes_back_to_the_very_state(tmp_path):
    """Skipping step 12 from the state after 12 steps is a run whose batch 12 never was."""
    one, other = TinyRecipe(), TinyRecipe()
    same = {"schedule": "constant", "guard_every": 4}
    run(tmp_path / "a", recipe=one, batches=BadBatches({12}), steps=13, **same)
    run(tmp_path / "b", recipe=other, steps=12, **same)
    for name, value in other.networks.state_dict().items():
        assert torch.equal(one.networks.state_dict()[name], value)


def test_resumed_run_goes_back_to_the_same_state(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = {"guard_every": 7, "checkpoint_every": 5, "steps": 30}
    run(whole, batches=BadBatches({12}), **settings)
    run(parts, batches=BadBatches({12}), **settings)
    for folder in (parts / "checkpoints").iterdir():
        if int(folder.name) > 20:
            (folder / "weights.safetensors").write_bytes(b"cut")
    assert newest_checkpoint(parts)[0].step == 20
    run(parts, batches=BadBatches({12}), resume=True, **settings)
    strip = [
        {k: v for k, v in line.items() if k in ("step", "loss")} for line in read_metrics(whole)
    ]
    again = [
        {k: v for k, v in line.items() if k in ("step", "loss")} for line in read_metrics(parts)
    ]
    assert strip == again


def test_gives_up_after_too_many(tmp_path):
    with pytest.raises(UserError, match=r"not finite 3 times, last at step 8; lower the learning"):
        run(tmp_path / "a", batches=BadBatches(set(range(6, 99))), max_failures=3)
    assert read_run(tmp_path / "a")["status"] == "stopped"
    checkpoint, _ = newest_checkpoint(tmp_path / "a")
    assert all(torch.isfinite(value).all() for value in checkpoint.weights().values())


def test_failures_are_counted_anew_after_good_steps(tmp_path):
    result = run(tmp_path / "a", batches=BadBatches({5, 15, 25, 35}), max_failures=2, guard_every=5)
    assert len(result.warnings) == 4


def test_last_good_restores_weights_average_and_moments():
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 3)
    ema, optimizer = Ema(net, 0.9), torch.optim.AdamW(net.parameters(), lr=0.1)
    good = LastGood(net, ema, optimizer)

    def step():
        net(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        ema.update(5)

    def everything():
        moments = [v.clone() for s in optimizer.state.values() for v in s.values()]
        return (
            [p.detach().clone() for p in net.parameters()]
            + moments
            + [v.clone() for v in ema.state.values()]
        )

    step()
    good.take(1)
    before = everything()
    step()
    assert not torch.equal(before[0], everything()[0])
    assert good.restore() == 1
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
    step()
    assert good.restore() == 1
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
