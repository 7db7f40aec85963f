import math
from pathlib import Path

import pytest
import torch

from unflat.errors import UserError
from unflat.training import read_metrics
from unflat.training.tracking import Tracker


def test_numbers_come_back_to_the_bit_and_what_is_not_finite_is_null(tmp_path):
    tracker = Tracker(tmp_path, 0, tensorboard=False)
    value = float(torch.tensor(0.1))
    tracker.log({"step": 1, "loss": value, "psnr": math.inf})
    tracker.close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": value, "psnr": None}]


def test_resume_drops_what_came_later_and_half_a_line(tmp_path):
    tracker = Tracker(tmp_path, 0, tensorboard=False)
    for step in (1, 2, 3):
        tracker.log({"step": step})
    tracker.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    tracker = Tracker(tmp_path, 2, tensorboard=False)
    tracker.log({"step": 3, "again": True})
    tracker.close()
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_said_in_one_sentence(tmp_path):
    tracker = Tracker(tmp_path, 0, tensorboard=False)
    tracker._file.close()
    tracker._file = Path("/dev/full").open("a")  # noqa: SIM115
    with pytest.raises(UserError, match=r"metrics.jsonl can not be written \(No space left"):
        tracker.log({"step": 1})
    tracker.close()
