"""Simulated sweeps with known effects, written as the harness writes real ones (without its fsync)."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sweep import scores
from sweep.metrics import LOSS, of_test, to_plain

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


def write_scores(
    folder: Path,
    rng: np.random.Generator,
    example_sd: float = 0.0,
    both_sd: float = 0.0,
    examples: Sequence[int] = range(64),
    clusters: Sequence[int] | None = None,
    file: str = scores.SCORES_FILE,
) -> Path:
    """Score every trial of a sweep on ``examples`` of 1 to 9 tokens, the new test loss being that of its validation.

    Each cell has an effect of each example, of standard deviation ``example_sd`` and the same at all seeds; ``both_sd`` is
    left. Examples of one number of ``clusters`` share their effect. The scores are written to ``file``, and as
    ``test/loss`` into the record where they are not those of a later evaluation.
    """
    identity = np.array(examples, dtype=np.uint64) + np.uint64(1 << 40)
    weight = (1 + identity % np.uint64(9)).astype(np.float32)
    cluster = np.arange(len(examples)) if clusters is None else np.array(clusters)
    effects: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*/record.json")):
        record = json.loads(path.read_text())
        if record["status"] != "finished":
            continue
        trial = record["trial"]
        cell = json.dumps({key: value for key, value in trial.items() if key != "seed"})
        effect = effects.setdefault(cell, rng.normal(0, example_sd, 1 + int(cluster.max())))[cluster]
        losses = record["result"]["eval/loss"] + effect + rng.normal(0, both_sd, len(examples))
        own = scores.Scores(identity, cluster.astype(np.int32), weight, {"test/loss": (losses * weight).astype("f4")})
        scores.write({"target": own}, path.with_name(file))
        if file == scores.SCORES_FILE:
            record["result"]["test/loss"] = float(own.sums["test/loss"].sum(dtype=float) / weight.sum(dtype=float))
            record["metrics"] = to_plain([LOSS, of_test(LOSS)])
            path.write_text(json.dumps(record))
    return folder
