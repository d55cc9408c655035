"""Simulated sweeps with known effects, written as the harness writes real ones (without its fsync)."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

SEED_SD = 0.012
RESIDUAL_SD = 0.006
TOTAL = 421_000


def loss_of(trial: Mapping[str, Any]) -> float:
    """The true eval loss of a trial: falls with rank, attention worse than all layers, best at lr 1e-3."""
    adapter = trial["adapter"]
    if adapter["kind"] == "none":
        return 2.0
    distance = math.log10(trial["optimizer"]["lr"] / 1e-3)
    loss = 1.30 + 0.05 * distance**2
    if adapter["kind"] == "full":
        return loss - 0.03
    loss += 0.16 / adapter["rank"]
    loss += {"all_linear": 0.0, "attention": 0.04}.get(adapter["targets"], 0.02)
    return loss + {"kaiming": 0.0, "pissa": -0.012}.get(adapter["init"], 0.0)


def make_trial(seed: int, task: str = "transformer", kind: str = "lora", lr: float = 1e-3, **adapter: Any) -> dict:
    values = {"rank": 8, "alpha": 16.0, "init": "kaiming", "targets": "all_linear", "layers": None}
    values |= {"scaling": "alpha/rank", "dropout": 0.0, "bias": "none"} | adapter
    return {
        "seed": seed,
        "task": {"name": task, "data": {"length": 64}},
        "adapter": {"kind": kind, **(values if kind == "lora" else dict.fromkeys(values))},
        "optimizer": {"name": "adamw", "lr": lr, "weight_decay": 0.0},
        "training": {"steps": 200, "batch_size": 32, "eval_every": 50},
    }


def grid(
    seeds: Iterable[int] = range(5), references: Sequence[str] = ("full", "none"), **factors: Sequence
) -> list[dict]:
    """The full product of ``factors`` (arguments of make_trial) and seeds, with reference trials."""
    trials = []
    for seed in seeds:
        for values in product(*factors.values()):
            trials.append(make_trial(seed, **dict(zip(factors, values, strict=True))))
        for kind in references:
            for lr in factors.get("lr", (1e-3,)) if kind == "full" else (1e-3,):
                trials.append(make_trial(seed, kind=kind, lr=lr))
    return trials


def write_sweep(
    folder: Path,
    trials: Sequence[dict],
    rng: np.random.Generator,
    truth: Callable[[Mapping[str, Any]], float] = loss_of,
    diverge: Callable[[Mapping[str, Any]], bool] = lambda trial: False,
    points: int = 5,
) -> Path:
    """Write one folder a trial; all trials of one seed share its effect, which is what pairing removes."""
    folder.mkdir(parents=True, exist_ok=True)
    shared: dict[int, float] = {}
    for index, trial in enumerate(trials):
        noise = shared.setdefault(trial["seed"], rng.normal(0, SEED_SD))
        loss = truth(trial) + noise + rng.normal(0, RESIDUAL_SD)
        write_trial(folder / f"trial_{index:05d}", trial, folder.name, loss, rng, diverge(trial), points)
    return folder


def write_trial(
    place: Path, trial: dict, name: str, loss: float, rng: np.random.Generator, diverged: bool, points: int
) -> None:
    place.mkdir()
    adapter = trial["adapter"]
    wide = 2 if adapter["targets"] == "all_linear" else 1
    trainable = {"full": TOTAL, "none": 0}.get(adapter["kind"], 1024 * (adapter["rank"] or 0) * wide)
    total = TOTAL + (trainable if adapter["kind"] == "lora" else 0)
    source = 1.1 + 0.02 * math.log2(1 + trainable / 1024) + rng.normal(0, RESIDUAL_SD)
    step_ms = 4 + trainable / 1e5 + 0.05 * (trial["seed"] % 3)
    rows = [
        {
            "step": step,
            "eval/loss": loss + 0.7 * math.exp(-4 * step / 200),
            "eval/source_loss": source - 0.1 * math.exp(-3 * step / 200),
            **({"train/loss": loss - 0.05 + 0.7 * math.exp(-4 * step / 200)} if step else {}),
        }
        for step in (round(200 * i / (points - 1)) for i in range(points))
    ]
    record = {
        "trial_id": f"{name}-{place.name}",
        "name": name,
        "status": "diverged" if diverged else "finished",
        "trial": trial,
        "ablation": name,
        "params": {"trainable": trainable, "total": total, "trainable_ratio": trainable / total},
        "result": {}
        if diverged
        else {
            "train/loss": loss - 0.05,
            "eval/loss": loss,
            "eval/perplexity": math.exp(loss),
            "eval/source_loss": source,
            "eval/base_source_loss": 1.05,
        },
        "perf": {
            "samples_per_second": 900 + rng.normal(0, 20),
            "step_ms": 35 + rng.normal(0, 1),
            "peak_memory_mb": 310.0 + trainable / 1e5,
            "pack_size": 8,
            **({"alone_step_ms": step_ms, "alone_samples_per_second": 8e3 / step_ms} if trainable else {}),
            **({"alone_peak_memory_mb": 1.0 + trainable / 1e4} if trainable else {}),
        },
        "environment": {"torch": "2.13.0"},
        "notes": [],
        "error": {"type": "Diverged", "message": "loss is not finite at step 20", "traceback": ""}
        if diverged
        else None,
        "format": 1,
    }
    (place / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "record.json").write_text(json.dumps(record))
