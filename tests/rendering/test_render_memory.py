"""256 x 256 pixels at 96 samples a ray fit 2 GB.

Matter is so dense that rays end after their first block: all blocks of a chunk are equally large,
so the peak is that of the whole march, at a twelfth of its time.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
import torch
from unflat.fields import *
from unflat.geometry import Camera, Frame
from unflat.rendering import RenderOptions, render

torch.set_num_threads(1)
torch.manual_seed(0)
if sys.argv[1] == "viewspace":  # the planes of a 256 pixel model
    planes = ViewSpacePlanes(
        torch.randn(1, 37, 256, 256), torch.randn(1, 32, 64, 128), torch.randn(1, 32, 64, 128)
    )
    field = ViewSpaceField(planes, ViewSpaceDecoder(32), Frame())
    dense = field.decoder.mlp[3].bias
else:  # EG3D's sizes
    field = TriplaneField(torch.randn(1, 3, 32, 256, 256), FeatureDecoder(32, 64))
    dense = field.decoder.out.bias
if len(sys.argv) == 2:
    torch.nn.init.constant_(dense, 100.0)
camera = Camera.from_fov(0.87, torch.eye(4)[None])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
least = 0.0 if len(sys.argv) == 3 else 1e-3
options = RenderOptions(samples=96, near=1.0, far=12.0, least_light=least)
picture = render(field, camera, 256, 256, options)
assert picture.rgb.shape == (1, 3, 256, 256)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
KILOBYTE = 1 if sys.platform != "darwin" else 1024  # what ru_maxrss counts, in kilobytes


def peaks(kind: str) -> tuple[float, float]:
    """Peak memory of a process before and after rendering, MB."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    source = str(Path(__file__).parents[2] / "src")
    environment["PYTHONPATH"] = os.pathsep.join([source, environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind],
        capture_output=True,
        text=True,
        env=environment,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = (int(number) / KILOBYTE / 1000 for number in done.stdout.split())
    return before, after


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["viewspace", "triplane"])
def test_a_large_picture_fits_two_gigabytes(kind):
    before, after = peaks(kind)
    assert after < 2000
    assert after - before > 50, "the measure sees the rendering"
