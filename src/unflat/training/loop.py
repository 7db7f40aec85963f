"""One loop for all recipes, on Accelerate.

    result = train(recipe, batches, TrainConfig(steps=20_000), Path("runs/a"))

A step is a pure function of the state before it and of its number: batches and random numbers
are taken from the number. So a run that was killed goes on to the same losses (bit-exact on CPU
with one process), and two processes do what one does at the same global batch.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from unflat.errors import UserError
from unflat.training.checkpoint import (
    Checkpoint,
    copy_matching,
    load_optimizer_tensors,
    newest_checkpoint,
    optimizer_tensors,
    save_checkpoint,
    start_from,
)
from unflat.training.config import TrainConfig
from unflat.training.distribution import (
    StepModule,
    largest_over_processes,
    make_accelerator,
    refuse_drift,
)
from unflat.training.ema import Ema
from unflat.training.event import ConsoleReporter, Event, EventKind, OnEvent
from unflat.training.feeding import Feeder
from unflat.training.guard import LastGood
from unflat.training.means import RunningMeans
from unflat.training.randomness import first_samples, split_batch, step_generator, step_seed
from unflat.training.recipe import BatchSource, Paced, Recipe
from unflat.training.run_folder import make_folder, read_run, refuse_used, versions, write_run
from unflat.training.schedule import lr_factor, run_progress
from unflat.training.stop import StopWish, stop_signals
from unflat.training.threads import fastest_threads
from unflat.training.tracking import Tracker

_SAMPLES = 8  # pictures of the batch that a sample sheet is made from


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    out: Path
    """The run's folder."""
    step: int
    """Optimizer steps done."""
    elapsed: float
    """Seconds of the run, all its parts together."""
    checkpoint: Path
    """The last checkpoint."""
    metrics: dict[str, float]
    """The last logged figures."""
    warnings: tuple[str, ...]
    """What was said as a warning in this part of the run."""


def train(
    recipe: Recipe,
    batches: BatchSource,
    config: TrainConfig,
    out: Path | str,
    *,
    resume: bool = False,
    init: Path | str | None = None,
    on_event: OnEvent | None = None,
    about: dict[str, Any] | None = None,
) -> TrainResult:
    """Train a recipe's networks; they hold the last weights (not the average) afterwards.

    Args:
        recipe: networks and what is minimised.
        batches: this process's share of each batch.
        config: how the run is run.
        out: the run's folder, new or empty unless ``resume``.
        resume: go on from the newest whole checkpoint in ``out``, or begin if there is none.
        init: a model file, checkpoint or run whose weights are the start; optimizer fresh.
            Without effect where a checkpoint is resumed.
        on_event: told what happens, on the first process; None shows it on the terminal.
        about: kept under ``about`` in run.json, as in where the data is.

    Raises:
        UserError: ``out`` is in use, ``init`` unreadable, or the losses stay not finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    had_group = distributed.is_available() and distributed.is_initialized()
    run = _Run(recipe, batches, config, Path(out), on_event, about or {})
    result = run.run(resume, init)
    if run.world_size > 1 and not had_group:
        distributed.destroy_process_group()
    return result


class _Run:
    def __init__(
        self,
        recipe: Recipe,
        batches: BatchSource,
        config: TrainConfig,
        out: Path,
        on_event: OnEvent | None,
        about: dict[str, Any],
    ) -> None:
        self.recipe, self.config, self.out, self.about = recipe, config, out, about
        self.init: str | None = None
        self.networks = recipe.networks
        self.accelerator = make_accelerator(config)
        self.device: torch.device = self.accelerator.device
        self.is_main = bool(self.accelerator.is_main_process)
        self.rank = int(self.accelerator.process_index)
        self.world_size = int(self.accelerator.num_processes)
        self.feeder = Feeder(batches, self.rank, self.world_size, self.device)
        self.on_event = (on_event or ConsoleReporter()) if self.is_main else _silent
        self.step = 0
        self.elapsed_before, self.started = 0.0, time.monotonic()
        self.failures = self.good_steps = 0
        self.means = RunningMeans()
        self.metrics: dict[str, float] = {}
        self.warnings: list[str] = []
        self.tracker: Tracker | None = None
        self.checkpoint_path: Path | None = None
        self.threads: int | None = None

    # -- the run ---------------------------------------------------------------------------------

    def run(self, resume: bool, init: Path | str | None) -> TrainResult:
        """Prepare, loop, finish."""
        checkpoint = self._open(resume, init)
        self._prepare(begin=checkpoint is None)
        if checkpoint is not None:
            self._load(checkpoint)
        self._set_threads(checkpoint)
        self.good.take(self.step)
        self.started = time.monotonic()
        if self.is_main:
            self._write_run("running")
            self.tracker = Tracker(self.out, self.step, self.config.tensorboard)
        self._tell("start", self._start_line())
        if checkpoint is None:
            self._save()  # so that a resumed run has the same start, and a full disk shows now
        try:
            with stop_signals() as stop, _memory_sentence(self.config):
                self._loop(stop)
            self._tell("end", f"{self.out}: {self.step} steps in {self.elapsed():.0f} s, all saved")
        finally:
            self.feeder.close()
            if self.tracker is not None:
                self.tracker.close()
            if isinstance(self.on_event, ConsoleReporter):
                self.on_event.close()
        return self._result()

    def _loop(self, stop: StopWish) -> None:
        elapsed, stopped = self.elapsed(), False
        self.logged_at, self.logged_step = time.monotonic(), self.step
        while self._progress(elapsed) < 1.0 and not stopped:
            elapsed, stopped = self._one_step(self._progress(elapsed), stop)
            if self._is_due(self.config.sample_every):
                self._sample()
            if self._is_due(self.config.checkpoint_every):
                self._save()
        if self.checkpoint_path is None or self.checkpoint_path.name != f"{self.step:06d}":
            self._save()
        if self._progress(elapsed) < 1.0:
            self._write_run("stopped")
            self._tell("stop", f"{self.out}: stopped at step {self.step}, saved; --resume goes on")
            raise KeyboardInterrupt
        if self.config.sample_every and self.step % self.config.sample_every:
            self._sample()
        self._write_run("finished")

    def _one_step(self, progress: float, stop: StopWish) -> tuple[float, bool]:
        """One optimizer step, or one batch skipped; seconds of the run, and whether to stop."""
        terms = self._gradients(progress)
        norm = self._clip()
        is_finite = bool(torch.isfinite(terms["loss"] + norm))
        answers = [float(not is_finite), float(stop.came), self.elapsed()]
        any_bad, any_stop, elapsed = largest_over_processes(answers, self.device)
        if any_bad:
            self._go_back(f"loss {float(terms['loss']):g}, gradient norm {float(norm):g}")
        else:
            figures = self._update(progress)
            self.means.add(terms | {"grad_norm": norm})
            if self._is_due(self.config.log_every):
                self._log(progress, figures)
        self._tell("step")
        return elapsed, any_stop > 0

    def _gradients(self, progress: float) -> dict[str, Tensor]:
        """Mean terms of this step's batch; gradients are left on the parameters."""
        seed, parts = self.config.seed, self.config.accumulate
        terms: dict[str, Tensor] = {}
        for i, part in enumerate(split_batch(self.feeder.batch(self.step), parts)):
            # for dropout and the like, which take no generator
            torch.manual_seed(step_seed(seed, self.step, f"rank {self.rank} part {i}"))
            generator = step_generator(seed, self.step, self.device)
            with self.accelerator.accumulate(self.model):
                results = self.model(part, progress, generator)
                self.accelerator.backward(results["loss"])
            for name, value in results.items():
                share = value.detach().float() / parts
                terms[name] = terms[name] + share if name in terms else share
        return terms

    def _clip(self) -> Tensor:
        limit = self.config.clip_norm or math.inf
        norm = self.accelerator.clip_grad_norm_(self.networks.parameters(), limit)
        return torch.as_tensor(norm, device=self.device).detach().float()

    def _update(self, progress: float) -> dict[str, float]:
        """The optimizer's step and what follows it; the recipe's figures."""
        self.lr = self.config.lr * lr_factor(
            self.step,
            progress,
            warmup_steps=self.config.warmup_steps,
            schedule=self.config.schedule,
            final_fraction=self.config.final_lr_fraction,
        )
        if isinstance(self.recipe, Paced):
            self.lr *= self.recipe.lr_factor(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group["lr_scale"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(step_seed(self.config.seed, self.step, "after"))
        figures = self.recipe.after_step(self.step)
        if self.ema is not None:
            self.ema.update(self.step)
        self.step += 1
        self.good_steps += 1
        if self.good_steps >= self.config.guard_every:
            self.failures = 0
        if self._is_due(self.config.guard_every):
            self.good.take(self.step)
        return figures

    # -- guard -----------------------------------------------------------------------------------

    def _go_back(self, reason: str) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        restored = self.good.restore()
        self.failures += 1
        self.good_steps = 0
        skipped = self.step
        self.step += 1
        message = (
            f"step {skipped}: {reason}; went back to the weights after step {restored} "
            f"and skipped this batch ({self.failures} of {self.config.max_failures})."
        )
        self._warn(message)
        if self.tracker is not None:
            self.tracker.log({"step": self.step, "skipped": reason, "restored_step": restored})
        if self.failures >= self.config.max_failures:
            self._save()
            self._write_run("stopped")
            raise UserError(
                f"{self.out}: the loss was not finite {self.failures} times, last at step "
                f"{skipped}; lower the learning rate ({self.config.lr:g}) or check the data."
            )

    # -- figures, pictures, checkpoints ----------------------------------------------------------

    def _log(self, progress: float, figures: dict[str, float]) -> None:
        self.metrics = self.means.take() | figures
        now, done = time.monotonic(), self.step - self.logged_step
        rate = done * self.config.batch_size / max(now - self.logged_at, 1e-9)
        self.logged_at, self.logged_step = now, self.step
        values = {"step": self.step, **self.metrics, "lr": self.lr, "progress": progress}
        values |= {"elapsed": self.elapsed(), "samples_per_second": rate}
        if self.tracker is not None:
            self.tracker.log(values)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        self._tell("log", f"step {self.step}  {shown}  {rate:.1f}/s", values)

    def _sample(self) -> None:
        if self.tracker is not None:
            batch = first_samples(self.feeder.batch(0, ahead=False), _SAMPLES)
            torch.manual_seed(step_seed(self.config.seed, 0, "sample"))
            with torch.no_grad(), self._averaged():
                path = self.tracker.picture(self.step, self.recipe.sample(batch))
            self._tell("sample", values={"path": str(path)})
        self.accelerator.wait_for_everyone()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        if self.ema is None:
            yield
            return
        with self.ema.applied():
            yield

    def _save(self) -> None:
        refuse_drift(self.networks, self.step)
        self.good.take(self.step)  # a resumed run has this state to go back to, so has this one
        self.checkpoint_path = self.out / "checkpoints" / f"{self.step:06d}"
        if self.is_main:
            save_checkpoint(
                self.out,
                networks=self.networks,
                ema=self.ema.state if self.ema is not None else None,
                optimizer=optimizer_tensors(self.optimizer.optimizer, self.networks),
                state=self._state(),
                keep=self.config.keep,
            )
            self._tell("checkpoint", values={"path": str(self.checkpoint_path)})
        self.accelerator.wait_for_everyone()

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "elapsed": self.elapsed(),
            "seed": self.config.seed,
            "threads": self.threads,
            "failures": self.failures,
            "good_steps": self.good_steps,
            "means": self.means.to_json(),
            **versions(),
            "train": self.config.to_json(),
            "recipe": self.recipe.config_json(),
        }

    # -- beginning -------------------------------------------------------------------------------

    def _open(self, resume: bool, init: Path | str | None) -> Checkpoint | None:
        """Check the run's folder on all processes, then make it; the checkpoint to go on from."""
        checkpoint = None
        self.init = str(init) if init is not None else None
        if resume:
            was = read_run(self.out)
            if was.get("recipe") != json.loads(json.dumps(self.recipe.config_json())):
                raise UserError(
                    f"{self.out}: was begun with another model or config; resume it without "
                    "those options, or choose another --out."
                )
            self.init = self.init or was.get("init")
            checkpoint, passed = newest_checkpoint(self.out)
            for sentence in passed:
                self._warn(sentence)
            if checkpoint is None:
                self._warn(f"{self.out}: has no whole checkpoint yet; beginning at step 0.")
        else:
            refuse_used(self.out)
        self.accelerator.wait_for_everyone()
        if self.is_main:
            make_folder(self.out)
        return checkpoint

    def _prepare(self, begin: bool) -> None:
        if begin and self.init is not None:
            taken, left = start_from(self.networks, self.init)
            self._tell("init", taken)
            if left:
                self._warn(left)
        settings = [{"lr_scale": 1.0, **group} for group in self.recipe.parameter_groups()]
        optimizer = torch.optim.AdamW(
            settings,
            lr=self.config.lr,
            betas=self.config.betas,
            weight_decay=self.config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.model, self.optimizer = self.accelerator.prepare(StepModule(self.recipe), optimizer)
        self.model.train()
        decay = self.config.ema_decay
        self.ema = Ema(self.networks, decay) if decay > 0 else None
        self.good = LastGood(self.networks, self.ema, self.optimizer.optimizer)

    def _load(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        weights = checkpoint.weights()
        left = copy_matching(self.networks, weights)
        if left:
            raise UserError(
                f"{checkpoint.path}: does not fit this version of the model ({'; '.join(left)}); "
                "start from it with --init in another --out."
            )
        if self.ema is not None:
            self.ema.load(checkpoint.ema() or weights)
        load_optimizer_tensors(self.optimizer.optimizer, self.networks, checkpoint.optimizer())
        self.step, self.elapsed_before = checkpoint.step, float(state["elapsed"])
        self.failures, self.good_steps = int(state["failures"]), int(state["good_steps"])
        self.means.load(state.get("means", {}), self.device)
        self.checkpoint_path = checkpoint.path
        self._tell("resume", f"{self.out}: going on after step {self.step}.")
        old, new = TrainConfig.from_json(state["train"]).to_json(), self.config.to_json()
        changed = [f"{name} {old[name]} -> {new[name]}" for name in new if old[name] != new[name]]
        if changed:
            self._warn(f"{self.out}: going on with other settings: {', '.join(changed)}.")

    def _set_threads(self, checkpoint: Checkpoint | None) -> None:
        if self.device.type != "cpu":
            return
        chosen = self.config.threads
        if chosen is None and checkpoint is not None:
            chosen = checkpoint.state.get("threads")
        if chosen is not None:
            torch.set_num_threads(chosen)
        elif self.world_size == 1:
            before = {k: v.clone() for k, v in self.networks.state_dict().items()}
            fastest_threads(lambda: self._gradients(0.0))
            self.networks.load_state_dict(before)
            self.optimizer.zero_grad(set_to_none=True)
        self.threads = torch.get_num_threads()

    def _write_run(self, status: str) -> None:
        if self.is_main:
            write_run(
                self.out,
                {
                    "status": status,
                    "step": self.step,
                    "recipe": self.recipe.config_json(),
                    "train": self.config.to_json(),
                    "init": self.init,
                    "about": self.about,
                    "processes": self.world_size,
                    **versions(),
                },
            )

    # -- small things ----------------------------------------------------------------------------

    def elapsed(self) -> float:
        """Seconds of the run, all its parts together."""
        return self.elapsed_before + time.monotonic() - self.started

    def _progress(self, elapsed: float) -> float:
        return run_progress(self.step, self.config.steps, elapsed, self.config.max_seconds)

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _tell(
        self, kind: EventKind, message: str = "", values: dict[str, Any] | None = None
    ) -> None:
        elapsed = self.elapsed()
        self.on_event(
            Event(
                kind=kind,
                step=self.step,
                progress=self._progress(elapsed),
                elapsed=elapsed,
                message=message,
                values=values or {},
            )
        )

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        self._tell("warning", message)

    def _start_line(self) -> str:
        millions = sum(p.numel() for p in self.networks.parameters()) / 1e6
        where = str(self.device)
        if self.threads is not None:
            where += f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        if self.world_size > 1:
            where += f", {self.world_size} processes"
        return f"{self.out}: {millions:.2f} M parameters, {where}, {self.config.precision}"

    def _result(self) -> TrainResult:
        assert self.checkpoint_path is not None
        return TrainResult(
            out=self.out,
            step=self.step,
            elapsed=self.elapsed(),
            checkpoint=self.checkpoint_path,
            metrics=self.metrics,
            warnings=tuple(self.warnings),
        )


@contextmanager
def _memory_sentence(config: TrainConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of GPU memory at batch size {config.batch_size}; try --accumulate "
            f"{2 * config.accumulate} or a smaller --batch-size."
        ) from error


def _silent(_event: Event) -> None:
    pass
