import math

import pytest

from unflat.training.schedule import ema_decay, lr_factor, run_progress


def test_cosine_closed_form():
    settings = {"warmup_steps": 10, "schedule": "cosine", "final_fraction": 0.1}
    assert lr_factor(0, 0.0, **settings) == pytest.approx(0.1)
    assert lr_factor(4, 0.0, **settings) == pytest.approx(0.5)
    assert lr_factor(9, 0.0, **settings) == pytest.approx(1.0)
    assert lr_factor(50, 0.5, **settings) == pytest.approx(0.1 + 0.9 * 0.5)
    assert lr_factor(99, 1.0, **settings) == pytest.approx(0.1)
    third = 0.1 + 0.9 * (1 + math.cos(math.pi / 3)) / 2
    assert lr_factor(33, 1 / 3, **settings) == pytest.approx(third)


def test_constant_keeps_the_peak_after_the_warmup():
    factors = [
        lr_factor(step, step / 20, warmup_steps=5, schedule="constant") for step in range(20)
    ]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5:] == [1.0] * 15


def test_no_warmup_starts_at_the_peak():
    assert lr_factor(0, 0.0, warmup_steps=0) == 1.0


def test_progress_is_by_steps_or_time_whichever_is_further():
    assert run_progress(25, 100) == 0.25
    assert run_progress(25, 100, elapsed=30.0, max_seconds=60.0) == 0.5
    assert run_progress(80, 100, elapsed=30.0, max_seconds=60.0) == 0.8
    assert run_progress(80, 100, elapsed=90.0, max_seconds=60.0) == 1.0
    assert run_progress(120, 100) == 1.0


def test_ema_decay_is_warmed_up():
    assert ema_decay(0, 0.999) == pytest.approx(0.1)
    assert ema_decay(90, 0.999) == pytest.approx(91 / 100)
    assert ema_decay(10**6, 0.999) == 0.999
