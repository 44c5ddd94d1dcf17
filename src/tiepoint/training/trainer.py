"""The training loop: batches in, a better network out, and never a run that cannot go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from tiepoint.errors import TrainingError
from tiepoint.training.detector.batch import Batch, collate
from tiepoint.training.detector.network import TrainableSuperPoint
from tiepoint.training.detector.objective import Objective, objective
from tiepoint.training.presets import Preset, Stage
from tiepoint.training.state import Progress, State, load_state, save_state

if TYPE_CHECKING:
    from tiepoint.training.scenes.pairs import TrainingPair

SAVE_EVERY_S = 60.0
LOG_EVERY = 20
"""Steps whose means make one record of the log."""

HOPELESS_STREAK = 50
"""Steps in a row without a finite gradient: the weights are beyond repair."""

HOPELESS_AFTER = 1000
"""Steps of a kind after which a run must have learnt something."""

HOPELESS_ACCURACY = 0.05
"""Match accuracy that every run that came to something had long passed by then; chance gives .001.
The small network had .12, and was learning."""

HOPELESS_BLIND = 0.98
"""Cross-entropy in parts of that of an answer which is the same everywhere."""


class HopelessError(TrainingError):
    """The run goes on without learning, or cannot go on at all."""


class PairSource(Protocol):
    """Where batches come from: endless, and the same for the same seed and first step."""

    def __iter__(self) -> Iterator[Sequence[TrainingPair]]:
        """Batches, one per step."""

    def close(self) -> None:
        """End its workers."""


OpenSource = Callable[[Stage, int], PairSource]
"""(stage, number of the next step) -> batches of the stage's size from that step on."""


@dataclass(frozen=True)
class Record:
    """Means over the steps since the last record.

    Attributes:
        step: The last of these steps.
        stage: Its name.
        done: Share of the budget spent, 0..1.
        figures: Losses, match accuracy and so on.
        images_per_s: Since the last record.
        waiting: Share of that time spent waiting for data.
        rate: Learning rate.
        skipped: Steps left out so far.
        left_s: Seconds to the end of the budget, expected.
    """

    step: int
    stage: str
    done: float
    figures: Mapping[str, float]
    images_per_s: float
    waiting: float
    rate: float
    skipped: int
    left_s: float


@dataclass
class Hooks:
    """What a run tells while it goes on; all of it optional.

    Attributes:
        record: Called with each record.
        benchmark: Called every `benchmark_every` steps and at the end; its time is not counted.
        saved: Called after each save.
    """

    record: Callable[[Record], None] = lambda record: None
    benchmark: Callable[[Trainer], None] = lambda trainer: None
    saved: Callable[[Trainer], None] = lambda trainer: None


@dataclass
class _Window:
    """Sums since the last record."""

    seconds: float = 0.0
    waited: float = 0.0
    images: int = 0
    steps: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, figures: Mapping[str, Tensor]) -> None:
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: float(value) / self.counts[name] for name, value in self.sums.items()}


class Trainer:
    """A run: its network, average, optimiser and progress.

    Args:
        preset: The recipe, its budget included.
        seed: Decides the first weights, the points drawn and, through `open_source`, the data.
        open_source: Opens the batches of a stage.
        folder: Where the state lies; made if need be.
        device: Where to train.
        about: Data, origin and so on: kept in the state, for the manifest.
        start: The plain network's tensors to start from; None starts from random weights.
        compiled: Run the network through torch.compile: three times the speed on a CPU after a
            minute's wait per stage; needs a C++ compiler there.
        teacher: See `objective`.
    """

    def __init__(
        self,
        preset: Preset,
        seed: int,
        open_source: OpenSource,
        folder: Path,
        device: torch.device,
        *,
        about: Mapping[str, Any] | None = None,
        start: Mapping[str, Tensor] | None = None,
        compiled: bool = False,
        teacher: nn.Module | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.preset, self.seed, self.folder, self.device = preset, seed, folder, device
        self.about = dict(about or {})
        self.hooks = hooks or Hooks()
        self.progress = Progress()
        self.recent: dict[str, float] = {}
        self._open_source, self._teacher = open_source, teacher
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            shape = preset.network, preset.batch_norm, preset.frozen_blocks
            self.network, self.average = TrainableSuperPoint(*shape), TrainableSuperPoint(*shape)
        if start is not None:
            self.network.load_state_dict(dict(start))
        self.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average.load_state_dict(self.network.state_dict())
        self.average.eval().requires_grad_(False)
        self._forward: nn.Module = self.network
        if compiled:
            self._forward = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]
        self.optimiser = _optimiser(self.network, preset)
        self._generator = torch.Generator(device)

    @classmethod
    def resume(
        cls,
        folder: Path,
        open_source: OpenSource,
        device: torch.device,
        *,
        preset: Preset | None = None,
        compiled: bool = False,
        teacher: nn.Module | None = None,
        hooks: Hooks | None = None,
    ) -> Trainer:
        """The run whose state lies in a folder, to go on from there.

        Args:
            preset: Another budget for the same network; None keeps the run's own.
            compiled: As for a new run.

        Raises:
            TrainingError: No state there, or one that does not fit.
        """
        state = load_state(folder)
        chosen = preset or Preset.from_json(state.run["preset"])
        about, seed = state.run["about"], state.run["seed"]
        run = cls(
            chosen, seed, open_source, folder, device, about=about, compiled=compiled,
            teacher=teacher, hooks=hooks,
        )  # fmt: skip
        try:
            run.network.load_state_dict(state.network)
            run.average.load_state_dict(state.average)
            run.optimiser.load_state_dict(state.optimiser)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"{folder}: its state does not fit its preset ({error})") from error
        run.progress, run.recent = state.progress, state.recent
        return run

    @property
    def done(self) -> float:
        """Share of the budget spent, 0..1."""
        return self.preset.done(self.progress.step, self.progress.seconds)

    @property
    def stage(self) -> Stage:
        """The stage that the next step belongs to."""
        return self.preset.stages[self.preset.stage_at(self.done)]

    def run(self, stop: Event | None = None) -> bool:
        """Train until the budget is spent or `stop` is set; the state is saved either way.

        Returns:
            Whether the budget is spent.

        Raises:
            HopelessError: The run is hopeless: NaN without end, or nothing learnt.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        saved_at = time.monotonic()
        while self.done < 1 and not _set(stop):
            stage_number = self.preset.stage_at(self.done)
            for _ in self._steps_of(stage_number):
                if time.monotonic() - saved_at >= SAVE_EVERY_S:
                    self.save()
                    saved_at = time.monotonic()
                if self.progress.step % self.preset.benchmark_every == 0:
                    self.hooks.benchmark(self)
                if _set(stop):
                    break
        self.save()
        return self.done >= 1

    def save(self) -> None:
        """Write the state."""
        state = State(
            run={"preset": self.preset.to_json(), "seed": self.seed, "about": self.about},
            progress=self.progress,
            network=self.network.state_dict(),
            average=self.average.state_dict(),
            optimiser=self.optimiser.state_dict(),
            recent=self.recent,
        )
        save_state(self.folder, state)
        self.hooks.saved(self)

    def step(self, batch: Batch, stage: Stage) -> Objective:
        """One optimiser step on a batch; left out when its gradient is not finite."""
        rate = self.preset.rate_at(self.done, self.progress.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # Seeded by the step, so that a resumed run needs no generator's state.
        self._generator.manual_seed((self.seed << 32) + self.progress.step)
        self.network.train()
        norms = [buffer.clone() for buffer in self.network.buffers()]
        found = objective(
            self._forward, batch, stage, self.preset.points, self._generator,
            self._precision(), self._teacher,
        )  # fmt: skip
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(found.loss)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.preset.clip)
        if bool(torch.isfinite(norm) & torch.isfinite(found.loss)):
            self.optimiser.step()
            self._average()
            self.progress.streak = 0
        else:
            for buffer, before in zip(self.network.buffers(), norms, strict=True):
                buffer.copy_(before)
            self.progress.skipped += 1
            self.progress.streak += 1
        self.progress.step += 1
        self.progress.stage_step += 1
        in_stage = self.progress.stage_steps
        in_stage[stage.name] = in_stage.get(stage.name, 0) + 1
        self.progress.images += len(batch.pixels)
        return found

    def _steps_of(self, stage_number: int) -> Iterator[None]:
        """Train within one stage, yielding after each step."""
        stage = self.preset.stages[stage_number]
        if self.progress.stage != stage_number:
            self.progress.stage, self.progress.stage_step = stage_number, 0
        source = self._open_source(stage, self.progress.step)
        window = _Window()
        try:
            batches = iter(source)
            while self.done < 1 and self.preset.stage_at(self.done) == stage_number:
                begun = time.monotonic()
                pairs = next(batches)
                waited = time.monotonic() - begun
                batch = collate(pairs, self.device)
                found = self.step(batch, stage)
                spent = time.monotonic() - begun
                self.progress.seconds += spent
                self.progress.waited += waited
                window.seconds += spent
                window.waited += waited
                window = self._note(window, found, len(batch.pixels), stage)
                yield
        finally:
            source.close()

    def _note(self, window: _Window, found: Objective, images: int, stage: Stage) -> _Window:
        """Add a step to the window; a full one becomes a record."""
        if self.progress.streak == 0:
            window.add({"loss": found.loss, **found.figures})
        window.images += images
        window.steps += 1
        if self.progress.streak >= HOPELESS_STREAK:
            raise HopelessError(
                f"{HOPELESS_STREAK} steps in a row had no finite gradient; resume from an older "
                "state with a lower learning rate, or look at the images"
            )
        if window.steps < LOG_EVERY and self.done < 1:
            return window
        means = window.means()
        spent = max(window.seconds, 1e-9)
        self.hooks.record(
            Record(
                step=self.progress.step,
                stage=stage.name,
                done=self.done,
                figures=means,
                images_per_s=window.images / spent,
                waiting=window.waited / spent,
                rate=self.optimiser.param_groups[0]["lr"],
                skipped=self.progress.skipped,
                left_s=self.progress.seconds * (1 / max(self.done, 1e-9) - 1),
            )
        )
        self._check_hope(means, stage)
        return _Window()

    def _check_hope(self, means: Mapping[str, float], stage: Stage) -> None:
        """Raise when long enough a time has taught the network nothing."""
        for name in ("accuracy", "cross_entropy", "blind"):
            if name in means:
                before = self.recent.get(name, means[name])
                self.recent[name] = 0.8 * before + 0.2 * means[name]
        if self.progress.step >= HOPELESS_AFTER:
            flat = self.recent.get("cross_entropy", 0.0)
            if flat > HOPELESS_BLIND * self.recent.get("blind", float("inf")):
                raise HopelessError(
                    f"the detector has learnt nothing in {self.progress.step} steps: cross-entropy "
                    f"{flat:.3f}, where the same answer everywhere gives "
                    f"{self.recent['blind']:.3f}; look at the scenes and the learning rate"
                )
        accuracy = self.recent.get("accuracy", 1.0)
        late = stage.descriptor_weight > 0 and self.progress.stage_step >= HOPELESS_AFTER
        if late and accuracy < HOPELESS_ACCURACY:
            raise HopelessError(
                f"match accuracy is {accuracy:.1%} after {self.progress.stage_step} steps of "
                f"stage {stage.name}, expected {HOPELESS_ACCURACY:.0%} at least; look at the "
                "pairs and the learning rate"
            )

    def _average(self) -> None:
        keep = min(self.preset.average, (1 + self.progress.step) / (10 + self.progress.step))
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        floating = [name for name, value in ours.items() if value.is_floating_point()]
        with torch.no_grad():
            torch._foreach_lerp_(
                [ours[name] for name in floating], [theirs[name] for name in floating], 1 - keep
            )

    def _precision(self) -> AbstractContextManager[object]:
        if not self.preset.bf16 or self.device.type not in ("cpu", "cuda"):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def _optimiser(network: nn.Module, preset: Preset) -> torch.optim.Optimizer:
    """AdamW; norms and biases do not decay."""
    trained = [p for p in network.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": preset.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=preset.learning_rate)


def _set(stop: Event | None) -> bool:
    return stop is not None and stop.is_set()
