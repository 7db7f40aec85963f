"""The loop with a real system: its tiny preset, two processes, and a restart."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_vq3d
import torch

from unflat.training import newest_checkpoint, read_metrics

HERE = Path(__file__).parent
LINEAR = ("loss", "pixel", "depth", "distortion", "quantizer", "novel", "novel_depth", "refiner")


def figures(out: Path) -> list[dict[str, float]]:
    return [{name: line[name] for name in LINEAR if name in line} for line in read_metrics(out)]


def start(out: Path, processes: int, *options: str) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    source = str(HERE.parents[1] / "src")
    return subprocess.run(
        [sys.executable, *launcher, str(HERE / "run_vq3d.py"), str(out), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_resumed_run_has_the_same_losses(tmp_path):
    run_vq3d.run(tmp_path / "whole")
    run_vq3d.run(tmp_path / "parts")
    (tmp_path / "parts" / "checkpoints" / "000003" / "state.json").unlink()
    run_vq3d.run(tmp_path / "parts", resume=True)
    assert len(figures(tmp_path / "whole")) == 3
    assert figures(tmp_path / "parts") == figures(tmp_path / "whole")
    assert (tmp_path / "whole" / "samples" / "000002.png").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_do_what_one_does(tmp_path):
    run_vq3d.run(tmp_path / "one")
    done = start(tmp_path / "two", 2)
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(figures(tmp_path / "two"), figures(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-8)
    one, two = (newest_checkpoint(tmp_path / name)[0] for name in ("one", "two"))
    assert one is not None
    assert two is not None
    assert one.weights().keys() == two.weights().keys()
    assert all(torch.isfinite(value).all() for value in two.weights().values())
