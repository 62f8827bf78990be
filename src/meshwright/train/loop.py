"""The training loop, the same for every stage: batches in, steps down the gradient, checkpoints out.

It knows an *objective*: a function of (model, batch, one seed an object) that returns named loss terms and the renders
they come from. Processes, precision and devices are Lightning Fabric's (lightning.ai/docs/fabric).
"""

import contextlib
import copy
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from meshwright.curate import Batch
from meshwright.errors import InputError
from meshwright.model import InstantMesh, InstantNeRF
from meshwright.progress import Progress, silent
from meshwright.train import sharding
from meshwright.train.config import OptimizerOptions, TrainConfig
from meshwright.train.prediction import Prediction, contact_sheet
from meshwright.train.runs import Run, TrainState, writing
from meshwright.train.schedules import ema_decay, learning_rate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Model = InstantNeRF | InstantMesh
Objective = Callable[[Any, Batch, Sequence[int]], tuple[dict[str, Tensor], Prediction]]
BatchStream = Callable[[int], Iterator[Batch]]
"""Batches of this process from the n-th on, counted over the whole training."""
Validate = Callable[[Model], dict[str, float]]
"""Measures a model on held-out objects; ``psnr`` among the numbers decides which checkpoint is the best."""

_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


@dataclass(frozen=True)
class Outcome:
    """Why a training ended: ``finished`` its steps, or was ``stopped`` by a signal, at ``step``, which is saved."""

    reason: Literal["finished", "stopped"]
    step: int
    skipped: int


Strategy = Literal["ddp", "fsdp"]
"""How processes share a model: each has it whole, or a part of every weight."""


def open_fabric(
    precision: str = "fp32", device: str = "auto", devices: int = 1, nodes: int = 1, strategy: Strategy = "ddp"
) -> "Fabric":
    """The processes of a training: one, ``devices`` on each of ``nodes``, or those that torchrun or SLURM started.

    ``strategy`` has no effect on a single process.

    Raises:
        InputError: the extra ``train`` is not installed, or ``fsdp`` is asked for with fp16.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy
    except ImportError:
        raise InputError("training needs lightning-fabric; pip install 'meshwright[train]'") from None
    processes = max(int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))), devices * nodes)
    how: Any = "auto"
    if processes > 1:
        devices = max(devices, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        if strategy == "fsdp":
            if precision == "fp16":
                raise InputError("fsdp does not scale the losses of fp16; use --precision bf16 or fp32")
            how = ModelParallelStrategy(_shard, data_parallel_size=processes, tensor_parallel_size=1)
        else:
            # Heads of objects without a surface have no gradient. Buffers are constants.
            how = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
    fabric = Fabric(accelerator=device, devices=devices, num_nodes=nodes, strategy=how, precision=_PRECISION[precision])
    fabric.launch()
    return fabric


def train(
    config: TrainConfig,
    model: Model,
    objective: Objective,
    batches: BatchStream,
    run: Run,
    fabric: "Fabric",
    validate: Validate | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Train ``model`` from the run's last checkpoint, or its beginning, to ``config.steps``; writes into ``run``.

    SIGTERM, SIGUSR1 (sent by SLURM before the time is up) and SIGINT save a checkpoint and end it.

    Raises:
        InputError: the disk is full, the checkpoint does not fit, or too many steps in a row were not finite.
    """
    mesh = _mesh(fabric)
    if mesh is not None:
        sharding.broadcast_weights(model, fabric.device)
    ema = copy.deepcopy(model).requires_grad_(False).eval().to(fabric.device)
    module = fabric.setup_module(_Objective(model, objective))
    if mesh is not None:
        sharding.shard(ema, ema, mesh)
    # After the set-up: weights that are split are other tensors than before.
    state = TrainState(model, ema, make_optimizer(config.optimizer, model))
    state.scaler = getattr(fabric.strategy.precision, "scaler", None)
    optimizer: Any = fabric.setup_optimizers(state.optimizer)
    if run.load(state) and fabric.is_global_zero:
        run.forget_after(state.step)
    if config.compile:
        model.encoder.compile()
        model.transformer.compile()
    check_equal(fabric, model)
    writer = _tensorboard(run, state.step) if fabric.is_global_zero else None
    stream = batches(state.step * config.accumulation)
    skipped_in_a_row = 0

    with _deterministic_on_cpu(fabric.device), _Signals() as signals:
        while state.step < config.steps:
            rate = learning_rate(config.optimizer, state.step, config.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            started = time.perf_counter()
            terms, batch, waited = _accumulate(config, module, stream, state.step, fabric)
            norm = _clip(fabric, module, optimizer, config.optimizer.clip_norm)
            # The gradients are those of all processes already; with the loss it is one decision for all of them.
            loss, *means, stop = _mean_over_processes(
                fabric, [_total(terms, config), *terms.values(), float(signals.received)]
            )
            finite = math.isfinite(loss) and math.isfinite(norm)
            if finite or state.scaler is not None:  # the scaler of fp16 skips by itself, and learns from it
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.step += 1
            if finite:
                _update_ema(state, ema_decay(config.ema_decay, state.step))
                skipped_in_a_row = 0
            else:
                state.skipped += 1
                skipped_in_a_row += 1

            if fabric.is_global_zero:
                values = {
                    "step": state.step,
                    "loss": loss,
                    **dict(zip(terms, means, strict=True)),
                    "rate": rate,
                    "gradient": norm,
                    "seconds": time.perf_counter() - started,
                    "waited_seconds": waited,
                }
                run.log({name: value if math.isfinite(value) else str(value) for name, value in values.items()})
                _to_tensorboard(writer, values, "train", state.step)
                if not finite:
                    run.save_skipped(state.step, batch)
                if state.step == 1 or state.step % config.pictures_every == 0:
                    _save_pictures(run, state.step, batch, module.prediction)
                progress("train", state.step / config.steps, _line(values, state.skipped))
            if skipped_in_a_row >= config.skip_limit:
                raise InputError(
                    f"{run.folder}: {skipped_in_a_row} steps in a row had no finite gradients, see skipped/;"
                    " lower the learning rate, or use fp32 or bf16"
                )
            _measure_and_save(config, state, run, fabric, validate, writer, stopping=stop > 0)
            if stop > 0:
                return Outcome("stopped", state.step, state.skipped)
    return Outcome("finished", state.step, state.skipped)


def make_optimizer(options: OptimizerOptions, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW over all parameters; vectors (biases, norms) do not decay unless ``decay_all``."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decaying = [p for p in parameters if p.dim() > 1 or options.decay_all]
    others = [p for p in parameters if not (p.dim() > 1 or options.decay_all)]
    groups = [
        {"params": decaying, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=options.learning_rate, betas=options.betas, eps=options.eps
    )


def sample_seed(seed: int, number: int) -> int:
    """The seed of what is drawn for the n-th sample of a training, whichever process sees it."""
    return (seed * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03) % 2**63  # odd multipliers: no two n collide


def check_equal(fabric: "Fabric", model: nn.Module) -> None:
    """See that all processes have the same weights; what is split among them none has twice.

    Raises:
        RuntimeError: they do not, which no user can mend.
    """
    if fabric.world_size == 1 or sharding.is_sharded(model):
        return
    sums = [p.detach().double().sum() + p.detach().double().square().sum() for p in model.parameters()]
    gathered = cast(Tensor, fabric.all_gather(torch.stack(sums)))
    if not torch.equal(gathered, gathered[:1].expand_as(gathered)):
        raise RuntimeError("the processes of this training have different weights; please report this")


# --- one step --------------------------------------------------------------------------------------------------------


class _Objective(nn.Module):
    """Model and objective as one module, so that what wraps modules for many processes sees a single forward pass."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self._objective = objective
        self.prediction: Prediction | None = None
        self.planes: Tensor | None = None

    def forward(self, sealed: "_Sealed", seeds: Sequence[int]) -> dict[str, Tensor]:
        terms, prediction = self._objective(self.model, sealed.batch, seeds)
        self.prediction = prediction.detached()
        if self.planes is not None:
            # Split gradients are added up by all processes together, so each needs one of every weight, be it zero: an
            # object without a surface uses not all heads, and perhaps not even the planes.
            heads = torch.stack([p.sum() for p in self.model.synthesizer.parameters()])
            name = next(iter(terms))
            terms[name] = terms[name] + 0.0 * (heads.sum() + self.planes.sum())
            self.planes = None
        return terms


def _shard(module: nn.Module, mesh: Any) -> nn.Module:
    """What Fabric calls to split a model among processes."""
    assert isinstance(module, _Objective)
    sharding.shard(module.model, module, mesh["data_parallel"])
    module.model.transformer.register_forward_hook(lambda _, __, triplane: setattr(module, "planes", triplane.planes))
    return module


def _mesh(fabric: "Fabric") -> Any:
    """The processes that a model is split among, or None."""
    mesh = getattr(fabric.strategy, "device_mesh", None)
    return None if mesh is None else mesh["data_parallel"]


class _Sealed:
    """Keeps Fabric from looking into a batch: it would copy frozen dataclasses field by field, and fail."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


def _accumulate(
    config: TrainConfig, module: Any, stream: Iterator[Batch], step: int, fabric: "Fabric"
) -> tuple[dict[str, Tensor], Batch, float]:
    """Add up the gradients of one step: mean terms, the last batch, and seconds spent waiting for data."""
    sums: dict[str, Tensor] = {}
    waited = 0.0
    for part in range(config.accumulation):
        start = time.perf_counter()
        batch = next(stream).to(fabric.device)
        waited += time.perf_counter() - start
        number = (step * config.accumulation + part) * fabric.world_size + fabric.global_rank
        seeds = [sample_seed(config.seed, number * config.batch_size + i) for i in range(len(batch))]
        is_last = part == config.accumulation - 1
        with fabric.no_backward_sync(module, enabled=not is_last):
            terms = module(_Sealed(batch), seeds)
            fabric.backward(_total(terms, config) / config.accumulation)
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.detach() / config.accumulation
    return sums, batch, waited


def _total(terms: dict[str, Tensor], config: TrainConfig) -> Tensor:
    weights = asdict(config.losses)
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def _clip(fabric: "Fabric", module: Any, optimizer: Any, longest: float) -> float:
    """Length of the gradient before it was shortened to ``longest`` (0: left as it is)."""
    norm = fabric.clip_gradients(module, optimizer, max_norm=longest or math.inf, error_if_nonfinite=False)
    assert norm is not None
    return float(sharding.whole(norm))


def _mean_over_processes(fabric: "Fabric", values: Sequence[Tensor | float]) -> list[float]:
    stacked = torch.stack([torch.as_tensor(value, dtype=torch.float64, device="cpu") for value in values])
    if fabric.world_size > 1:
        stacked = cast(Tensor, fabric.all_reduce(stacked.to(fabric.device), reduce_op="mean")).cpu()
    return [float(value) for value in stacked]


@torch.no_grad()
def _update_ema(state: TrainState, decay: float) -> None:
    for mean, parameter in zip(state.ema.parameters(), state.model.parameters(), strict=True):
        sharding.own_part(mean).lerp_(sharding.own_part(parameter), 1 - decay)


# --- beside the steps ------------------------------------------------------------------------------------------------


def _measure_and_save(
    config: TrainConfig,
    state: TrainState,
    run: Run,
    fabric: "Fabric",
    validate: Validate | None,
    writer: Any,
    stopping: bool,
) -> None:
    last = stopping or state.step == config.steps
    validating = validate is not None and (last or state.step % config.validate_every == 0) and not stopping
    saving = last or state.step % config.checkpoint_every == 0
    if not saving and not validating:
        return
    if saving:
        check_equal(fabric, state.model)
    whole = state.whole()  # all processes take part
    if fabric.is_global_zero:
        if validate is not None and validating:
            found = validate(whole.ema)
            run.log({"step": state.step, "validation": found})
            _to_tensorboard(writer, found, "validation", state.step)
            if found["psnr"] > state.best_psnr:
                whole.best_step, whole.best_psnr = state.step, found["psnr"]
                saving = True  # a best that was not saved is none
        if saving:
            run.save(whole, config.keep_checkpoints)
    state.best_step, state.best_psnr = whole.best_step, whole.best_psnr
    if fabric.world_size > 1:
        fabric.barrier()


def _save_pictures(run: Run, step: int, batch: Batch, prediction: Prediction | None) -> None:
    name = "data" if step == 1 else f"step-{step:08d}"
    with writing(run.folder):
        contact_sheet(batch, prediction).save(run.folder / "pictures" / f"{name}.png")


def _line(values: Mapping[str, float | int], skipped: int) -> str:
    text = f"loss {values['loss']:.4f}, rate {values['rate']:.1e}, {1 / max(values['seconds'], 1e-9):.2f} step/s"
    return text + (f", {skipped} skipped" if skipped else "")


def _tensorboard(run: Run, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # metrics.jsonl has the same numbers
        return None
    return SummaryWriter(str(run.folder / "tensorboard"), purge_step=step + 1)


def _to_tensorboard(writer: Any, values: Mapping[str, float | int], group: str, step: int) -> None:
    if writer is None:
        return
    for name, value in values.items():
        if name != "step":
            writer.add_scalar(f"{group}/{name}", value, step)


class _Signals:
    """While entered, SIGTERM, SIGUSR1 and SIGINT ask for an end instead of making one; a second SIGINT makes it."""

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        names = [signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
        for name in names:
            with contextlib.suppress(ValueError):  # not in the main thread
                self._before[name] = signal.signal(name, self._receive)
        return self

    def _receive(self, number: int, frame: Any) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)


@contextlib.contextmanager
def _deterministic_on_cpu(device: torch.device) -> Iterator[None]:
    """Sums in one order on the CPU, whose gradients of lookups otherwise add up as threads happen to run."""
    before = torch.are_deterministic_algorithms_enabled()
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
