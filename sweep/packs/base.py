"""The base of a task: pre-trained once for each distinct content, and cached under its hash."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from sweep.adapters.calibration import Calibration
from sweep.adapters.fold import fold_full, fold_none, linear_layers
from sweep.adapters.inits import BaseWeight
from sweep.files import replace_file
from sweep.hardware import threads, useful_threads
from sweep.metrics import of_base, of_source, of_test
from sweep.models.model import Model
from sweep.registry import TASKS
from sweep.rng import generator
from sweep.tasks.options import TaskOptions
from sweep.tasks.task import Batch, Task
from sweep.training.evaluate import (
    POSITIONS_AT_ONCE,
    Both,
    evaluate_both,
    figures_of_both,
    has_validation,
    measure_test,
)
from sweep.training.examples import Examples, figures_of_test, identify
from sweep.training.loop import Callbacks, train
from sweep.training.options import OptimizerOptions, TrainingOptions

log = logging.getLogger(__name__)

FORMAT = 1
CALIBRATION_POSITIONS = 4096
PRETRAINING_THREADS = 2
"""The same on every machine: the last bits of a base depend on how a product is divided among threads."""


@dataclass(frozen=True)
class Base:
    """A frozen pre-trained model, its decomposable weights, the hash of its bits, and how good it is.

    ``metrics`` are what an evaluation gives, ``tested`` what it scores on each of the test ``examples``. ``figures`` are
    the means of both under their names in a record, such as ``eval/base_source_loss`` and ``test/base_loss``.
    """

    model: Model
    weights: dict[str, BaseWeight]
    sha256: str
    metrics: dict[str, float]
    tested: Both
    examples: Examples
    figures: dict[str, float]


def load_base(
    options: TaskOptions, data: str, task: Task, cache_folder: Path, device: torch.device, available: int = 1
) -> Base:
    """The base of a task, and how good it is.

    The arguments are those of ``pretrained``; a large base is evaluated on ``available`` threads.
    """
    model = pretrained(options, data, task, cache_folder, device).to(device).eval().requires_grad_(False)
    weights = base_weights(model, task)
    alone = fold_none(model, trials=1)
    with threads(useful_threads(model, available)):  # several stall on small products beside other processes
        tested = measure_test(alone, task)
        [metrics] = evaluate_both(alone, task) if has_validation(task) else figures_of_both(task, *tested)
    [test_metrics] = figures_of_test(task, tested)
    means = [one for metric in task.metrics if metric.kind == "mean" for one in (metric, of_source(metric))]
    figures = {of_base(one).name: metrics[one.name] for one in means if one.name in metrics}
    figures |= {of_test(of_base(one)).name: test_metrics[of_test(one).name] for one in means if one.name in metrics}
    return Base(model, weights, _sha256(model), metrics, tested, identify(task), figures)


def pretrained(
    options: TaskOptions,
    data: str,
    task: Task,
    cache_folder: Path,
    device: torch.device,
    on_step: Callable[[int], None] = lambda step: None,
) -> Model:
    """Take the base model from the cache, or train it and put it there; two sweeps at once train it once.

    Args:
        options: the task's options; those that only concern the target domain do not matter here.
        data: the fingerprint of the task's data.
        task: the task itself.
        cache_folder: where bases are kept, as ``bases/<hash>.safetensors``.
        device: where to train.
        on_step: called with the number of the step just done while the base trains.

    """
    model = task.base()
    if model is None:
        path = base_file(options, data, cache_folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            model = _cached(path, task) or _trained(path, task, device, on_step)
    return model


def base_weights(model: Model, task: Task) -> dict[str, BaseWeight]:
    """The weights of every linear layer, to be decomposed and calibrated on the target domain when a trial needs it.

    Calibration sees ``CALIBRATION_POSITIONS`` positions of the training data, the same for every trial and seed.
    """
    layers = linear_layers(model)
    device = next(model.parameters()).device
    positions = task.target.positions
    rows = max(1, POSITIONS_AT_ONCE // positions)

    def batches() -> Iterator[Batch]:
        drawn = task.target.batches(generator(0, "calibration"), rows)
        return (batch.to(device) for batch in islice(drawn, max(1, CALIBRATION_POSITIONS // (rows * positions))))

    calibration = Calibration(model, layers, task, batches)
    return {name: BaseWeight(layer.weight, name, calibration) for name, layer in layers.items()}


def base_file(options: TaskOptions, data: str, cache_folder: Path) -> Path:
    """Where the cache has the base of a task on the data with fingerprint ``data``, once it is trained."""
    return cache_folder / "bases" / f"{_key(options, data)}.safetensors"


def _key(options: TaskOptions, data: str) -> str:
    science = options.model_dump(mode="json", exclude=set(options.target_only) | options.own_paths())
    science = options.without_unset(science)
    if plugin := TASKS.plugin(options.name):
        science["plugin"] = plugin.identity
    text = json.dumps({"format": FORMAT, "task": science, "data": data}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cached(path: Path, task: Task) -> Model | None:
    if not path.exists():
        return None
    try:
        model = task.new_model(torch.Generator())
        model.load_state_dict(load(path.read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        log.warning("The cached base %s cannot be read (%s); training it again.", path, str(error).splitlines()[0])
        return None
    return model


def _trained(path: Path, task: Task, device: torch.device, on_step: Callable[[int], None]) -> Model:
    recipe = task.pretraining
    assert recipe is not None
    with threads(PRETRAINING_THREADS):
        folded = fold_full(task.new_model(torch.Generator().manual_seed(recipe.seed)).to(device))
        setting = OptimizerOptions(
            name="adam",
            lr=recipe.lr,
            weight_decay=0.0,
            betas=(0.9, 0.999),
            eps=1e-8,
            momentum=0.0,
            schedule="constant",
            warmup_steps=0,
            clip_norm=None,
        )
        if recipe.schedule == "cosine":
            gentle = {
                "name": "adamw",
                "weight_decay": 0.01,
                "schedule": "cosine",
                "warmup_steps": recipe.steps // 20,
                "clip_norm": 1.0,
            }
            setting = setting.model_copy(update=gentle)
        training = TrainingOptions(
            steps=recipe.steps,
            batch_size=recipe.batch_size,
            accumulation=1,
            checkpointing=False,
            log_every=recipe.steps,
            eval_every=None,
        )
        train(folded, task, task.source, [setting], training, [recipe.seed], Callbacks(on_step=on_step))
    model = folded.model.cpu()
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    replace_file(path, save(tensors))
    return model


def _sha256(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
