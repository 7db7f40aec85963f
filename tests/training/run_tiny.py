"""A run as a process of its own: ``python run_tiny.py OUT '{"steps": 20, ...}' [--resume]``.

``--kill-at STEP`` ends the process with SIGKILL after that step, ``--kill-in STEP`` in the middle
of writing the checkpoint of that step.
"""

import argparse
import json
import os
import signal
from pathlib import Path

import torch
from tiny_recipe import TinyBatches, TinyRecipe

from unflat.training import Event, TrainConfig, checkpoint, process_rank, train


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("config", type=json.loads)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--kill-in", type=int)
    parser.add_argument("--dropout", type=float, default=0.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def on_event(event: Event) -> None:
        if event.kind == "step" and event.step == arguments.kill_at:
            kill()

    if arguments.kill_in:
        write = checkpoint._write

        def write_or_die(tensors: dict[str, torch.Tensor], path: Path) -> None:
            write(tensors, path)
            if path.parent.name.startswith(f"{arguments.kill_in:06d}") and "ema" in path.name:
                kill()

        checkpoint._write = write_or_die
    rank, world_size = process_rank()
    train(
        TinyRecipe(dropout=arguments.dropout),
        TinyBatches(16, rank, world_size),
        TrainConfig.from_json(arguments.config),
        arguments.out,
        resume=arguments.resume,
        on_event=on_event,
    )


if __name__ == "__main__":
    main()
