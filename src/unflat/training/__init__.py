"""Training: one loop, checkpoints, averages, schedules, tracking."""

from unflat.training.checkpoint import (
    BrokenCheckpointError,
    Checkpoint,
    load_init,
    newest_checkpoint,
    read_checkpoint,
    recipe_of_init,
)
from unflat.training.config import TrainConfig
from unflat.training.distribution import mean_over_processes, process_rank
from unflat.training.ema import Ema
from unflat.training.event import ConsoleReporter, Event
from unflat.training.loop import TrainResult, train
from unflat.training.model_file import load_weights, read_header, save_model
from unflat.training.randomness import rand_per_sample, randn_per_sample
from unflat.training.recipe import BatchSource, Recipe, decay_groups
from unflat.training.run_folder import read_run
from unflat.training.schedule import lr_factor, run_progress
from unflat.training.tracking import read_metrics

__all__ = [
    "BatchSource",
    "BrokenCheckpointError",
    "Checkpoint",
    "ConsoleReporter",
    "Ema",
    "Event",
    "Recipe",
    "TrainConfig",
    "TrainResult",
    "decay_groups",
    "load_init",
    "load_weights",
    "lr_factor",
    "mean_over_processes",
    "newest_checkpoint",
    "process_rank",
    "rand_per_sample",
    "randn_per_sample",
    "read_checkpoint",
    "read_header",
    "read_metrics",
    "read_run",
    "recipe_of_init",
    "run_progress",
    "save_model",
    "train",
]
