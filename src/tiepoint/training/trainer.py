"""The training loop: optimiser steps, stages, saving and resuming."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from tiepoint.errors import TrainingError
from tiepoint.files.writing import make_folder
from tiepoint.network.engines import gpu_has_bf16
from tiepoint.training import devices
from tiepoint.training.conditional import Update, new_optimiser, restore_optimiser
from tiepoint.training.detector.batch import Batch, collate
from tiepoint.training.detector.network import TrainableSuperPoint
from tiepoint.training.detector.objective import Objective, objective
from tiepoint.training.log import LogRecord
from tiepoint.training.monitor import LOG_EVERY, Window, check_learning, check_streak
from tiepoint.training.on_device.source import DeviceStep
from tiepoint.training.presets import Preset, Stage
from tiepoint.training.schedule import AnyStage, Schedule
from tiepoint.training.state import Progress, RunConfig, State, save_state

if TYPE_CHECKING:
    from tiepoint.training.scenes.pairs import TrainingPair

SAVE_EVERY_S = 60.0

P = TypeVar("P", bound=Schedule)
Items_co = TypeVar("Items_co", covariant=True)
Given = TypeVar("Given")
B = TypeVar("B")


class Step(NamedTuple):
    """A step's `Objective`, and whether loss and gradient were finite; if not, it is skipped."""

    loss: Tensor
    figures: dict[str, Tensor]
    finite: Tensor


class Source(Protocol[Items_co]):
    """An endless source of batches, determined by its seed and first step."""

    def __iter__(self) -> Iterator[Items_co]:
        """Batches, one per step."""

    def close(self) -> None:
        """Stop its workers."""


@dataclass
class Hooks:
    """Optional callbacks of a run.

    Attributes:
        record: Called with each record of the log.
        benchmark: Called every `benchmark_every` steps; its time is not counted as training.
        saved: Called after each save.
    """

    record: Callable[[LogRecord], None] = lambda record: None
    benchmark: Callable[[Any], None] = lambda trainer: None
    saved: Callable[[Any], None] = lambda trainer: None


class Loop(ABC, Generic[P, Given, B]):
    """A run of any network: its weights, their moving average, optimiser and progress.

    Args:
        open_source: (stage, index of the next step) -> batches of the stage from that step on.
        folder: Folder of the state; created if missing.
        start: State dict to start from; None starts from random weights.
        compiled: Whether the network runs through torch.compile. On a CPU it triples the speed,
            after a minute's wait per stage, and needs a C++ compiler.
    """

    def __init__(
        self,
        config: RunConfig[P],
        open_source: Callable[[Any, int], Source[Given]],
        folder: Path,
        device: torch.device,
        *,
        start: Mapping[str, Tensor] | None = None,
        compiled: bool = False,
        hooks: Hooks | None = None,
    ) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.preset = preset = config.preset
        self.hooks = hooks or Hooks()
        self.progress = Progress()
        self.recent: dict[str, float] = {}
        self._open_source = open_source
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = self.new_network()
        if start is not None:
            self.network.load_state_dict(dict(start))
        self.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = deepcopy(self.network).eval().requires_grad_(False)
        self._forward: nn.Module = self.network
        if compiled:
            self._forward = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]
        self.optimiser = new_optimiser(self.network, preset, device)
        self._update = Update(self.network, self.average, self.optimiser)
        self._unread: list[Tensor] = []
        self._generator = torch.Generator(device)

    @abstractmethod
    def new_network(self) -> nn.Module:
        """The network with random weights."""

    @abstractmethod
    def collate(self, items: Given) -> B:
        """What a source gives for a step, as tensors on the device."""

    @abstractmethod
    def images_in(self, batch: B) -> int:
        """Number of images of a batch."""

    @abstractmethod
    def objective(self, batch: B, stage: Any, generator: torch.Generator) -> Objective:
        """The loss of a batch."""

    @abstractmethod
    def check(self, means: Mapping[str, float], stage: Any) -> None:
        """Raise HopelessError when a late run has learnt nothing; `means` are the latest record's.

        Keeps running means in `recent`.
        """

    def restore(self, state: State[P]) -> None:
        """Continue from a saved state of this run; its preset may have had another budget.

        Raises:
            TrainingError: The state does not fit the preset.
        """
        try:
            self.network.load_state_dict(state.network)
            self.average.load_state_dict(state.average)
            restore_optimiser(self.optimiser, state.optimiser)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise TrainingError(
                f"{self.folder}: its state does not fit its preset ({error})"
            ) from error
        self.progress, self.recent = state.progress, state.recent

    @property
    def done(self) -> float:
        """Fraction of the budget spent, 0..1."""
        return self.preset.done(self.progress.step, self.progress.seconds)

    def run(self, stop: Event | None = None) -> bool:
        """Train until the budget is spent (True) or `stop` is set (False), and save the state.

        Raises:
            HopelessError: Too many steps without a finite gradient, or nothing learnt.
        """
        stop = stop or Event()
        make_folder(self.folder)
        saved_at = time.monotonic()
        while self.done < 1 and not stop.is_set():
            for _ in self._steps_of(self.preset.stage_at(self.done)):
                if time.monotonic() - saved_at >= SAVE_EVERY_S:
                    self.save()
                    saved_at = time.monotonic()
                if self.progress.step % self.preset.benchmark_every == 0:
                    self.hooks.benchmark(self)
                if stop.is_set():
                    break
        self.save()
        return self.done >= 1

    def save(self) -> None:
        """Write the state."""
        self.count_skipped()
        state = State(
            self.config, self.progress, self.network.state_dict(), self.average.state_dict(),
            self.optimiser.state_dict(), self.recent,
        )  # fmt: skip
        save_state(self.folder, state)
        self.hooks.saved(self)

    def step(self, batch: B, stage: Any) -> Step:
        """Do one optimiser step on a batch; without a finite gradient it is skipped.

        On a device, `progress` has skipped steps only after `count_skipped`.

        Raises:
            HopelessError: Too many steps in a row were skipped.
        """
        progress = self.progress
        for group in self.optimiser.param_groups:
            group["lr"] = self.preset.rate_at(self.done, progress.step)
        # Seeded by the step, so resuming needs no generator state.
        self._generator.manual_seed(devices.step_seed(self.config.seed, progress.step))
        self.network.train()
        self._update.begin()
        result = self.objective(batch, stage, self._generator)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(result.loss)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.preset.clip)
        finite = torch.isfinite(norm) & torch.isfinite(result.loss.detach())
        keep = min(self.preset.average, (1 + progress.step) / (10 + progress.step))
        self._update.end(finite, 1 - keep)
        self._unread.append(finite)
        progress.step += 1
        progress.stage_step += 1
        progress.stage_steps[stage.name] = progress.stage_steps.get(stage.name, 0) + 1
        progress.images += self.images_in(batch)
        if devices.reads_at_once(self.device):
            self.count_skipped()
        return Step(result.loss, result.figures, finite)

    def count_skipped(self) -> None:
        """Read from the device which of the last steps were skipped, and count them.

        Raises:
            HopelessError: Too many in a row.
        """
        unread, self._unread = self._unread, []
        for finite in torch.stack(unread).tolist() if unread else []:
            self.progress.skipped += not finite
            self.progress.streak = 0 if finite else self.progress.streak + 1
            check_streak(self.progress)

    def _steps_of(self, stage_number: int) -> Iterator[None]:
        """Train within one stage, yielding after each step."""
        stage, progress = self.preset.parts[stage_number], self.progress
        if progress.stage != stage_number:
            progress.stage, progress.stage_step = stage_number, 0
        source = self._open_source(stage, progress.step)
        window = Window()
        try:
            batches = iter(source)
            while self.done < 1 and self.preset.stage_at(self.done) == stage_number:
                start = time.monotonic()
                items = next(batches)
                waited = time.monotonic() - start
                batch = self.collate(items)
                result = self.step(batch, stage)
                window.add({"loss": result.loss, **result.figures}, result.finite)
                if window.steps + 1 >= LOG_EVERY:
                    self.count_skipped()  # waits for the device, whose time counts
                seconds = time.monotonic() - start
                progress.seconds += seconds
                progress.waited += waited
                window.add_step(seconds, waited, self.images_in(batch))
                if window.steps >= LOG_EVERY or self.done >= 1:
                    self._record(window, stage)
                    window = Window()
                yield
        finally:
            source.close()

    def _record(self, window: Window, stage: AnyStage) -> None:
        self.count_skipped()
        means, seconds = window.means(), max(window.seconds, 1e-9)
        record = LogRecord(
            self.progress.step, stage.name, self.done, figures=means,
            images_per_s=window.images / seconds, waiting=window.waited / seconds,
            rate=self.optimiser.param_groups[0]["lr"], skipped=self.progress.skipped,
            left_s=self.progress.seconds * (1 / max(self.done, 1e-9) - 1),
        )  # fmt: skip
        self.hooks.record(record)
        self.check(means, stage)

    def _precision(self) -> AbstractContextManager[object]:
        if not self.preset.bf16 or not _computes_in_bf16(self.device):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


Pairs: TypeAlias = "Sequence[TrainingPair] | DeviceStep"
"""The pairs of a step: drawn by workers, or to be made on the device."""


class Trainer(Loop[Preset, Pairs, Batch]):
    """A run of the detector.

    Args:
        teacher: Larger network to learn from; see `objective`.
    """

    network: TrainableSuperPoint

    def __init__(
        self,
        config: RunConfig[Preset],
        open_source: Callable[[Stage, int], Source[Pairs]],
        folder: Path,
        device: torch.device,
        *,
        start: Mapping[str, Tensor] | None = None,
        compiled: bool = False,
        teacher: nn.Module | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self._teacher = teacher
        super().__init__(
            config, open_source, folder, device, start=start, compiled=compiled, hooks=hooks
        )

    def new_network(self) -> TrainableSuperPoint:
        """See `Loop.new_network`."""
        preset = self.config.preset
        return TrainableSuperPoint(
            preset.network, batch_norm=preset.batch_norm, frozen_blocks=preset.frozen_blocks
        )

    def collate(self, items: Pairs) -> Batch:
        """See `Loop.collate`."""
        return items.batch() if isinstance(items, DeviceStep) else collate(items, self.device)

    def images_in(self, batch: Batch) -> int:
        """See `Loop.images_in`."""
        return len(batch.pixels)

    def objective(self, batch: Batch, stage: Stage, generator: torch.Generator) -> Objective:
        """See `Loop.objective`."""
        return objective(
            self._forward, batch, stage, self.preset.points, generator,
            self._precision(), self._teacher,
        )  # fmt: skip

    def check(self, means: Mapping[str, float], stage: Stage) -> None:
        """See `Loop.check`."""
        check_learning(self.recent, means, self.progress, stage)


def _computes_in_bf16(device: torch.device) -> bool:
    """Whether bfloat16 saves time: processors without it emulate it, five times slower."""
    if device.type == "cpu":
        has_kernels = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return has_kernels and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return gpu_has_bf16(str(device))
