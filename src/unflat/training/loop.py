"""One loop for all recipes, on Accelerate.

    result = train(recipe, batches, TrainConfig(steps=20_000), Path("runs/a"))

A step is a pure function of the state before it and of its number: batches and random numbers
are taken from the number. So a run that was killed goes on to the same losses (bit-exact on CPU
with one process), and two processes do what one does at the same global batch.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unflat.errors import UserError, require_extra
from unflat.training.checkpoint import (
    Checkpoint,
    copy_matching,
    load_init,
    load_optimizer_tensors,
    newest_checkpoint,
    optimizer_tensors,
    save_checkpoint,
)
from unflat.training.config import TrainConfig
from unflat.training.ema import Ema
from unflat.training.event import ConsoleReporter, Event, EventKind, OnEvent
from unflat.training.guard import LastGood
from unflat.training.randomness import (
    local_size,
    split_batch,
    step_generator,
    step_seed,
    with_position,
)
from unflat.training.recipe import BatchSource, Recipe
from unflat.training.run_folder import read_run, refuse_used, versions, write_run
from unflat.training.schedule import lr_factor, run_progress
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
        on_event: told what happens, on the first process; None shows it on the terminal.
        about: kept under ``about`` in run.json, as in where the data is.

    Raises:
        UserError: ``out`` is in use, ``init`` unreadable, or the losses stay not finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    return _Run(recipe, batches, config, Path(out), on_event, about or {}).run(resume, init)


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
        self.recipe, self.batches, self.config, self.out = recipe, batches, config, out
        self.about = about
        self.networks = recipe.networks
        self.accelerator = _accelerator(config)
        self.is_main = bool(self.accelerator.is_main_process)
        self.rank = int(self.accelerator.process_index)
        self.world_size = int(self.accelerator.num_processes)
        self.on_event = (on_event or ConsoleReporter()) if self.is_main else _silent
        self.step = 0
        self.elapsed_before = 0.0
        self.started = time.monotonic()
        self.failures = 0
        self.good_steps = 0
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.metrics: dict[str, float] = {}
        self.warnings: list[str] = []
        self.checkpoint_path: Path | None = None
        self.threads: int | None = None

    # -- the run ---------------------------------------------------------------------------------

    def run(self, resume: bool, init: Path | str | None) -> TrainResult:
        """Prepare, loop, finish."""
        checkpoint = self._open(resume)
        self._prepare(init if checkpoint is None else None)
        if checkpoint is not None:
            self._load(checkpoint)
        self._set_threads(checkpoint)
        self.good.take(self.step)
        self.tracker = None
        if self.is_main:
            self._write_run("running")
            self.tracker = Tracker(self.out, self.step, self.config.tensorboard)
        self.started = time.monotonic()
        self._tell("start", self._start_line())
        try:
            with _stop_signals() as stop:
                self._loop(stop)
        finally:
            if self.tracker is not None:
                self.tracker.close()
        self._tell("end", f"finished after {self.step} steps, {self.elapsed():.0f} s: {self.out}")
        return self._result()

    def _loop(self, stop: "_Stop") -> None:
        elapsed = self.elapsed()
        stopped = False
        self.logged_at, self.logged_step = time.monotonic(), self.step
        while self._progress(elapsed) < 1.0 and not stopped:
            elapsed, stopped = self._one_step(self._progress(elapsed), stop)
            if self._is_due(self.config.sample_every):
                self._sample()
            if self._is_due(self.config.checkpoint_every):
                self._save()
        finished = self._progress(elapsed) >= 1.0
        if self.checkpoint_path is None or self.checkpoint_path.name != f"{self.step:06d}":
            self._save()
        self._write_run("finished" if finished else "stopped")
        if not finished:
            self._tell("stop", f"stopped at step {self.step}, all saved; --resume goes on.")
            raise KeyboardInterrupt
        if self.config.sample_every and self.step % self.config.sample_every:
            self._sample()

    def _one_step(self, progress: float, stop: "_Stop") -> tuple[float, bool]:
        """One optimizer step, or one batch skipped; seconds of the run, and whether to stop."""
        terms = self._gradients(progress)
        norm = self._clip()
        finite = bool(torch.isfinite(terms["loss"] + norm))
        is_bad, is_stopped, elapsed = self._agree(not finite, stop.is_set(), self.elapsed())
        if is_bad:
            self._go_back(f"loss {float(terms['loss'])}, gradient norm {float(norm)}")
            return elapsed, is_stopped
        self._set_lr(progress)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(step_seed(self.config.seed, self.step, "after"))
        figures = self.recipe.after_step(self.step)
        if self.ema is not None:
            self.ema.update(self.step)
        self.step += 1
        self._count_good_step()
        self._add(terms | {"grad_norm": norm})
        if self.step % self.config.log_every == 0:
            self._log(progress, figures)
        self._tell("step")
        return elapsed, is_stopped

    def _gradients(self, progress: float) -> dict[str, Tensor]:
        """Mean terms of this step's batch; gradients are left on the parameters."""
        seed, device = self.config.seed, self.accelerator.device
        batch = with_position(self.batches.batch(self.step), self.rank, self.world_size)
        batch = {
            name: value if name == "batch_size" else value.to(device, non_blocking=True)
            for name, value in batch.items()
        }
        terms: dict[str, Tensor] = {}
        parts = split_batch(batch, self.config.accumulate)
        for i, part in enumerate(parts):
            # for dropout and the like, which take no generator
            torch.manual_seed(step_seed(seed, self.step, f"rank {self.rank} part {i}"))
            generator = step_generator(seed, self.step, device)
            with self.accelerator.accumulate(self.model):
                results = self.model(part, progress, generator)
                self.accelerator.backward(results["loss"])
            for name, value in results.items():
                share = value.detach().float() / len(parts)
                terms[name] = terms[name] + share if name in terms else share
        return terms

    def _clip(self) -> Tensor:
        limit = self.config.clip_norm or math.inf
        norm = self.accelerator.clip_grad_norm_(self.networks.parameters(), limit)
        return torch.as_tensor(norm, device=self.accelerator.device).detach().float()

    def _set_lr(self, progress: float) -> None:
        self.lr = self.config.lr * lr_factor(
            self.step,
            progress,
            warmup_steps=self.config.warmup_steps,
            schedule=self.config.schedule,
            final_fraction=self.config.final_lr_fraction,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group.get("lr_scale", 1.0)

    def _agree(self, bad: bool, stop: bool, elapsed: float) -> tuple[bool, bool, float]:
        """The same three answers on all processes: any, any, largest."""
        if self.world_size == 1:
            return bad, stop, elapsed
        values = torch.tensor([float(bad), float(stop), elapsed], device=self.accelerator.device)
        torch.distributed.all_reduce(values, op=torch.distributed.ReduceOp.MAX)
        bad_any, stop_any, longest = values.tolist()
        return bad_any > 0, stop_any > 0, longest

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

    def _count_good_step(self) -> None:
        self.good_steps += 1
        if self.good_steps >= self.config.guard_every:
            self.failures = 0
        if self.step % self.config.guard_every == 0:
            self.good.take(self.step)

    # -- figures, pictures, checkpoints ----------------------------------------------------------

    def _add(self, terms: dict[str, Tensor]) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1

    def _log(self, progress: float, figures: dict[str, float]) -> None:
        means = torch.stack([self.sums[name] / self.count for name in self.sums])
        if self.world_size > 1:
            torch.distributed.all_reduce(means)
            means = means / self.world_size
        self.metrics = dict(zip(self.sums, means.tolist(), strict=True)) | figures
        self.sums, self.count = {}, 0
        now = time.monotonic()
        done = self.step - self.logged_step
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
            batch = with_position(self.batches.batch(0), self.rank, self.world_size)
            size = min(_SAMPLES, local_size(batch))
            batch = {
                name: value[:size].to(self.accelerator.device) if value.ndim else value
                for name, value in batch.items()
            }
            torch.manual_seed(step_seed(self.config.seed, 0, "sample"))
            with torch.no_grad(), self._averaged():
                path = self.tracker.picture(self.step, self.recipe.sample(batch))
            self._tell("sample", "", {"path": str(path)})
        self.accelerator.wait_for_everyone()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        if self.ema is None:
            yield
            return
        with self.ema.applied():
            yield

    def _save(self) -> None:
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
            self._tell("checkpoint", "", {"path": str(self.checkpoint_path)})
        self.accelerator.wait_for_everyone()

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "elapsed": self.elapsed(),
            "seed": self.config.seed,
            "threads": self.threads,
            "failures": self.failures,
            "good_steps": self.good_steps,
            "sums": {name: float(value) for name, value in self.sums.items()},
            "count": self.count,
            **versions(),
            "train": self.config.to_json(),
            "recipe": self.recipe.config_json(),
        }

    # -- beginning -------------------------------------------------------------------------------

    def _open(self, resume: bool) -> Checkpoint | None:
        """Check the run's folder on all processes, then make it; the checkpoint to go on from."""
        checkpoint = None
        if resume:
            was = read_run(self.out)
            if was.get("recipe") != self.recipe.config_json():
                raise UserError(
                    f"{self.out}: was begun with another model or config; resume it without "
                    "those options, or choose another --out."
                )
            checkpoint, passed = newest_checkpoint(self.out)
            for sentence in passed:
                self._warn(sentence)
            if checkpoint is None:
                self._warn(f"{self.out}: has no whole checkpoint yet; beginning at step 0.")
        else:
            refuse_used(self.out)
        self.accelerator.wait_for_everyone()
        if self.is_main:
            self.out.mkdir(parents=True, exist_ok=True)
        return checkpoint

    def _prepare(self, init: Path | str | None) -> None:
        if init is not None:
            self._begin_from(init)
        settings = [{"lr_scale": 1.0, **group} for group in self.recipe.parameter_groups()]
        optimizer = torch.optim.AdamW(
            settings,
            lr=self.config.lr,
            betas=self.config.betas,
            weight_decay=self.config.weight_decay,
            fused=self.accelerator.device.type in ("cpu", "cuda"),
        )
        self.model, self.optimizer = self.accelerator.prepare(_StepModule(self.recipe), optimizer)
        self.model.train()
        decay = self.config.ema_decay
        self.ema = Ema(self.networks, decay) if decay > 0 else None
        self.good = LastGood(self.networks, self.ema, self.optimizer.optimizer)

    def _begin_from(self, init: Path | str) -> None:
        left = copy_matching(self.networks, load_init(init))
        total = len(self.networks.state_dict())
        if len(left) == total:
            raise UserError(f"--init {init}: none of its tensors fits this model; give another.")
        self._tell("init", f"{init}: took {total - len(left)} of {total} tensors.")
        if left:
            self._warn(f"{init}: not taken: {'; '.join(left)}.")

    def _load(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        self.networks.load_state_dict(checkpoint.weights())
        if self.ema is not None:
            self.ema.load(checkpoint.ema() or checkpoint.weights())
        load_optimizer_tensors(self.optimizer.optimizer, self.networks, checkpoint.optimizer())
        self.step, self.elapsed_before = checkpoint.step, float(state["elapsed"])
        self.failures, self.good_steps = int(state["failures"]), int(state["good_steps"])
        device = self.accelerator.device
        self.sums = {
            name: torch.tensor(value, device=device) for name, value in state["sums"].items()
        }
        self.count = int(state["count"])
        self.checkpoint_path = checkpoint.path
        self._tell("resume", f"{self.out}: going on after step {self.step}.")
        old, new = TrainConfig.from_json(state["train"]).to_json(), self.config.to_json()
        changed = [f"{name} {old[name]} -> {new[name]}" for name in new if old[name] != new[name]]
        if changed:
            self._warn(f"{self.out}: going on with other settings: {', '.join(changed)}.")

    def _set_threads(self, checkpoint: Checkpoint | None) -> None:
        if self.accelerator.device.type != "cpu":
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
        where = str(self.accelerator.device)
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


class _StepModule(nn.Module):
    """A recipe's step as a module's forward, which is what Accelerate prepares."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.networks = recipe.networks
        self._step: Callable[..., dict[str, Tensor]] = recipe.step

    def forward(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        terms = self._step(batch, progress, generator)
        return {name: v if name == "loss" else v.detach() for name, v in terms.items()}


class _Stop:
    """Whether Ctrl-C or SIGTERM came."""

    def __init__(self) -> None:
        self.came = False

    def is_set(self) -> bool:
        return self.came


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Inside the block the first Ctrl-C or SIGTERM is only noted; a second one acts at once."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.getsignal(name) for name in names}

    def note(_number: int, _frame: object) -> None:
        stop.came = True
        for name in names:
            signal.signal(name, before[name])

    for name in names:
        signal.signal(name, note)
    try:
        yield stop
    finally:
        for name in names:
            signal.signal(name, before[name])


def _accelerator(config: TrainConfig) -> Any:
    """An Accelerator as the config wants it; what an earlier run in this process set is dropped."""
    purpose = "training"
    accelerate = require_extra("accelerate", "train", purpose)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device was found; use --device cpu.")
    if config.device == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: no Apple GPU was found; use --device cpu.")
    on_cpu = config.device == "cpu" or (
        config.device == "auto"
        and not (torch.cuda.is_available() or torch.backends.mps.is_available())
    )
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    ddp = accelerate.DistributedDataParallelKwargs(broadcast_buffers=False)
    return accelerate.Accelerator(
        cpu=on_cpu,
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        gradient_accumulation_steps=config.accumulate,
        kwargs_handlers=[ddp],
    )


def _silent(_event: Event) -> None:
    pass
