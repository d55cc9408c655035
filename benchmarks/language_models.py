"""Sweeps of two language models, whole processes: ours against a PEFT loop that trains one trial after the other.

    python benchmarks/language_models.py --model llama smollm2 --trials 1 4

Both read the same cached tokens, draw the same batches, train for as many steps and evaluate before and after; the ratio
is of one run of both. PEFT uses every core for a trial, a worker of ours one.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """How a model is trained: updates, and positions of each of the two blocks of one."""

    steps: int
    context: int

    def task(self, model: str) -> dict[str, object]:
        """The options of the task that differ from its defaults."""
        return {"model": model, "context": self.context, "eval_windows": 4, "validation": 0}


SETTINGS = {"llama": Setting(30, 128), "smollm2": Setting(20, 64)}


def small_llama(folder: Path, cache: Path) -> str:
    """A Llama of 12.5 million random weights with the tokenizer and the template of SmolLM2."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sweep.models.folder import folder_of

    source = folder_of("smollm2", cache)
    torch.manual_seed(0)
    sizes = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 7}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 3}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = LlamaConfig(vocab_size=49152, tie_word_embeddings=True, **sizes, **heads, **ends)
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    for path in (*source.glob("tokenizer*"), *source.glob("*.jinja"), *source.glob("special_tokens_map.json")):
        shutil.copy(path, folder / "llama")
    return str(folder / "llama")


def sweep(model: str, setting: Setting, trials: int, cache: Path, folder: Path, *more: str) -> float:
    """Seconds of a packed sweep over seeds, evaluated at its beginning and its end."""
    options = [f"task.{name}={value}" for name, value in setting.task(model).items()]
    length = [f"training.steps={setting.steps}", f"training.eval_every={setting.steps}"]
    command = [sys.executable, "-m", "sweep", "-m", "hydra/launcher=packed", "task=causal_lm", *options, *length]
    seeds = "seed=" + ",".join(map(str, range(trials)))
    return timed([*command, seeds, "tracker=none", f"cache={cache}", *more], folder)


def timed(command: list[str], folder: Path) -> float:
    """Seconds of ``command``, started in ``folder``."""
    begin = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begin


def peft_loop(model: str, setting: Setting, trials: int, cache: Path) -> None:
    """What a careful user writes: one base, an adapter of PEFT for each trial, evaluated before and after."""
    import torch
    import torch.nn.functional as F
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from sweep.models.folder import folder_of
    from sweep.rng import generator
    from sweep.tasks.causal_lm.options import CausalLMOptions
    from sweep.tasks.task import Batch

    texts = {"source_text": None, "target_text": "verses"}
    task = CausalLMOptions.model_validate({"name": "causal_lm", **setting.task(model), **texts}).build(cache)

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        tokens, positions = (
            (batch.inputs[:, 0].long(), batch.inputs[:, 1].long()) if batch.inputs.ndim == 3 else (batch.inputs, None)
        )
        logits = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten().long(), ignore_index=-100)

    def evaluate(model: torch.nn.Module) -> list[float]:
        with torch.no_grad():
            return [loss(model, domain.held_out).item() for domain in (task.target, task.source)]

    base = AutoModelForCausalLM.from_pretrained(folder_of(model, cache), dtype=torch.float32)
    for seed in range(trials):
        torch.manual_seed(seed)
        adapted = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
        trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        result = {"before": evaluate(adapted)}
        batches = task.target.batches(generator(seed, "data"), 2)
        for _ in range(setting.steps):
            optimizer.zero_grad()
            loss(adapted, next(batches)).backward()
            optimizer.step()
        print(json.dumps(result | {"after": evaluate(adapted)}))
        base = adapted.unload()


def main() -> None:
    """Measure, or be the loop that is measured (``--peer FOLDER``)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 4], metavar="N", help="sizes of the sweep")
    parser.add_argument("--cache", type=Path, default=Path("outputs/.cache"))
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    cache = asked.cache.resolve()
    if asked.peer:
        peft_loop(asked.peer, SETTINGS[asked.model[0]], asked.trials[0], cache)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in asked.model:
            setting = SETTINGS[name]
            model = small_llama(folder, cache) if name == "llama" else name
            sweep(model, setting, 1, cache, folder, "--dry-run")  # model and tokens are in the cache from here on
            print(f"{name} --dry-run {sweep(model, setting, 1, cache, folder, '--dry-run'):.1f} s", flush=True)
            for trials in asked.trials:
                ours = sweep(model, setting, trials, cache, folder, f"name={name}-{trials}")
                own = [sys.executable, str(Path(__file__).resolve()), "--peer", model, "--model", name]
                peers = timed([*own, "--cache", str(cache), "--trials", str(trials)], folder)
                said = f"{trials} × {setting.steps} steps: {ours:.1f} s, PEFT {peers:.1f} s, {peers / ours:.2f}x"
                print(f"{name} {said}", flush=True)


if __name__ == "__main__":
    main()
