import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import run_paper_width
import torch

from unflat.systems.vq3d.config import PRESETS
from unflat.systems.vq3d.loss_config import LOSSES
from unflat.systems.vq3d.paper import GPU_SPEED, RUNS, cost
from unflat.training import newest_checkpoint, read_metrics


@pytest.mark.parametrize("name", RUNS)
def test_every_run_is_a_preset_of_the_papers_schedule(name):
    run = RUNS[name]()
    assert run.config == PRESETS[name]()
    assert run.loss == LOSSES["paper"]
    assert run.config.resolution == 256
    assert run.train.batch_size == 256
    assert run.train.warmup_steps * 10 == run.train.steps
    assert run.train.steps * run.train.batch_size / run.pictures > 90


def test_the_cost_is_that_of_the_formulas():
    """A block has 12 d^2 weights, each met twice for every token, and 4 N^2 d for attention."""
    run = RUNS["paper-imagenet256"]()
    needs = cost(run)
    tokens, blocks = 1024, ((8, 512), (32, 1280))
    network = sum(
        depth * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width) for depth, width in blocks
    )
    assert 1.0 < needs.flop_per_picture / (3 * network) < 1.1  # planes, field and critics on top
    # Fewer rays on a picture cost less by what their points cost: 2 (32 48 + 48 48 + 48 4).
    fewer = replace(run, loss=replace(run.loss, rows=32))
    point = 2 * (32 * 48 + 48 * 48 + 48 * 4)
    saved = needs.flop_per_picture - cost(fewer).flop_per_picture
    assert saved == pytest.approx(3 * 32 * 64 * 64 * point, rel=1e-3)
    assert needs.parameters == pytest.approx(660e6, rel=0.02)
    assert 1e7 < needs.critic_parameters < 1e8
    assert needs.flop == needs.flop_per_picture * 500_000 * 256
    assert needs.gpu_hours == pytest.approx(needs.flop / GPU_SPEED / 3600)
    assert needs.epochs == pytest.approx(100, rel=0.01)
    whole = 20 * (needs.parameters + needs.critic_parameters)
    assert needs.state_gib == pytest.approx(whole / 2**30)
    shorter = cost(RUNS["paper-compcars"]())
    assert shorter.flop == pytest.approx(needs.flop / 5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_start_the_paper_at_its_width(tmp_path):
    """Two blocks each of encoder and decoder, small windows: a minute and a half of one core."""
    program = str(Path(run_paper_width.__file__))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, *launcher, program, str(tmp_path / "run")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    checkpoint, _ = newest_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    assert checkpoint.step == run_paper_width.STEPS
    weights = checkpoint.weights()
    assert weights["model.decoder.blocks.1.mlp.0.weight"].shape == (5120, 1280)
    assert weights["model.encoder.blocks.1.mlp.0.weight"].shape == (2048, 512)
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    lines = [line for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert len(lines) == run_paper_width.STEPS
    assert {"critic", "novel_critic", "fooling", "perceptual", "quantizer"} <= lines[-1].keys()
    assert "restarted_codes" in lines[0]
