"""A sweep of a real chat model, whole processes: ours against a PEFT loop that trains one trial after the other.

    python benchmarks/language_models.py --trials 1 4 --steps 20

Both read the same cached tokens, draw the same batches and train for as many steps; the ratio is of one run of both.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASK = ("task=causal_lm", "task.eval_windows=4", "tracker=none")


def sweep(trials: int, steps: int, cache: Path, folder: Path, *more: str) -> float:
    """Seconds of a packed sweep over seeds, evaluated at its beginning and its end."""
    seeds = "seed=" + ",".join(map(str, range(trials)))
    command = [sys.executable, "-m", "sweep", "-m", "hydra/launcher=packed", *TASK, f"cache={cache}", seeds]
    return timed([*command, f"training.steps={steps}", f"training.eval_every={steps}", *more], folder)


def timed(command: list[str], folder: Path) -> float:
    begin = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begin


def peft_loop(trials: int, steps: int, cache: Path) -> None:
    """What a careful user writes: one base, an adapter of PEFT for each trial, evaluated before and after."""
    import torch
    import torch.nn.functional as F
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from sweep.models.folder import folder_of
    from sweep.rng import generator
    from sweep.tasks.causal_lm.options import CausalLMOptions
    from sweep.tasks.task import Batch

    options = CausalLMOptions(
        name="causal_lm", model="smollm2", context=256, eval_windows=4, source_text=None, target_text="verses"
    )
    task = options.build(cache)
    folder = folder_of("smollm2", cache)

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        tokens, positions = (
            (batch.inputs[:, 0].long(), batch.inputs[:, 1].long()) if batch.inputs.ndim == 3 else (batch.inputs, None)
        )
        logits = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten().long(), ignore_index=-100)

    def evaluate(model: torch.nn.Module) -> list[float]:
        with torch.no_grad():
            return [loss(model, domain.held_out).item() for domain in (task.target, task.source)]

    for seed in range(trials):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        result = {"before": evaluate(model)}
        batches = task.target.batches(generator(seed, "data"), 2)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(model, next(batches)).backward()
            optimizer.step()
        print(json.dumps(result | {"after": evaluate(model)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 4], metavar="N", help="sizes of the sweep")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cache", type=Path, default=Path("outputs/.cache"))
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    cache = asked.cache.resolve()
    if asked.peer:
        peft_loop(asked.trials[0], asked.steps, cache)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sweep(1, asked.steps, cache, folder, "--dry-run")  # the model and the tokens are in the cache from here on
        print(f"--dry-run {sweep(1, asked.steps, cache, folder, '--dry-run'):.1f} s")
        for trials in asked.trials:
            ours = sweep(trials, asked.steps, cache, folder, f"name=of-{trials}")
            own = [sys.executable, str(Path(__file__).resolve()), "--peer", "--cache", str(cache)]
            peers = timed([*own, "--trials", str(trials), "--steps", str(asked.steps)], folder)
            print(f"{trials} trials: {ours:.1f} s, PEFT {peers:.1f} s, {peers / ours:.2f}x")


if __name__ == "__main__":
    main()
