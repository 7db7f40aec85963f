"""Runs as processes of their own: killed, resumed, two at once, with packages missing.

Each test starts two to four processes that import torch: 6 to 15 s on a quiet machine, several
times that on a busy one.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unflat.training import newest_checkpoint, read_metrics

HERE = Path(__file__).parent
SETTINGS = {
    "steps": 20,
    "batch_size": 16,
    "lr": 1e-2,
    "warmup_steps": 5,
    "log_every": 1,
    "sample_every": 0,
    "checkpoint_every": 5,
    "device": "cpu",
    "tensorboard": False,
}


def start(
    out: Path, *options: str, launcher: tuple[str, ...] = (), **changes
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, str(HERE / "run_tiny.py"), str(out)]
    command += [json.dumps(SETTINGS | changes), *options]
    source = str(HERE.parents[1] / "src")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def losses(out: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(out)}


def weights(out: Path) -> dict[str, torch.Tensor]:
    checkpoint, _ = newest_checkpoint(out)
    assert checkpoint is not None
    return checkpoint.weights() | {f"ema.{k}": v for k, v in (checkpoint.ema() or {}).items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = start(out, "--dropout", "0.1")
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kill", [("--kill-at", "13"), ("--kill-in", "15"), ("--kill-at", "3")])
def test_killed_run_goes_on_to_the_same_losses(tmp_path, whole, kill):
    out = tmp_path / "run"
    died = start(out, *kill, "--dropout", "0.1")
    assert died.returncode == -signal.SIGKILL
    assert max(losses(out)) < 20
    done = start(out, "--resume", "--dropout", "0.1")
    assert done.returncode == 0, done.stderr
    assert losses(out) == losses(whole)
    ours, theirs = weights(out), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not list((out / "checkpoints").glob("*partial*"))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_do_what_one_does(tmp_path, accumulate):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    one = start(tmp_path / "one")
    two = start(tmp_path / "two", launcher=launcher, accumulate=accumulate)
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    first, second = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert first.keys() == second.keys()
    for step, loss in first.items():
        assert second[step] == pytest.approx(loss, rel=1e-5)
    ours, theirs = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, rtol=1e-4, atol=1e-6), name


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_training_needs_none_of_the_optional_packages(tmp_path):
    blocked = ["skimage", "trimesh", "diffusers", "gradio", "numba", "torchvision", "av"]
    code = f"""
import sys
for name in {blocked}:
    sys.modules[name] = None
sys.path.insert(0, {str(HERE)!r})
sys.argv = ["run", {str(tmp_path / "run")!r}, {json.dumps(SETTINGS | {"tensorboard": True})!r}]
import run_tiny
run_tiny.main()
"""
    source = str(HERE.parents[1] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert max(losses(tmp_path / "run")) == 20
    assert list((tmp_path / "run" / "tensorboard").iterdir())
