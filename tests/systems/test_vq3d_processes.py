import os
import subprocess
import sys
from pathlib import Path

import pytest
import restart_codes
import torch
from safetensors.torch import load_file


@pytest.mark.slow
def test_two_processes_restart_a_codebook_as_one_does(tmp_path):
    """Starting two processes takes longer than what they do."""
    program = str(Path(restart_codes.__file__))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, *launcher, program, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    alone = restart_codes.codebook_after_restart()
    assert 0 < alone["restarted"] < 64
    for rank in range(2):
        shared = load_file(tmp_path / f"{rank}.safetensors")
        for name, value in alone.items():
            torch.testing.assert_close(shared[name], value, rtol=1e-5, atol=1e-6)
