"""What a careful user would write today: Hydra's basic launcher, PEFT, a plain PyTorch loop and W&B offline.

One process trains one trial after the other. Data, pre-trained base, loss and random draws are those of the
harness, so that both train the very same trials; everything else is the libraries' own. Each trial leaves a
``result.json``. Run it through ``sweeps.py``, or alone:

    python benchmarks/peer.py -m task=mnist adapter.rank=1,4 seed=0,1
"""

import copy
import json
import time
from functools import cache
from pathlib import Path

import hydra
import torch
import wandb
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from sweep.adapters.inits import BaseWeight
from sweep.metrics import of_source
from sweep.packs.base import load_base
from sweep.registry import INITS, TASKS
from sweep.rng import generator
from sweep.tasks.options import TaskOptions
from sweep.tasks.task import Domain, Task

CONF = Path(__file__).parent.parent / "conf" / "task"
WANDB = wandb.Settings(
    console="off",
    silent=True,
    disable_git=True,
    disable_code=True,
    save_code=False,
    symlink=False,
    x_disable_meta=True,
    x_disable_stats=True,
    x_disable_machine_info=True,
    x_save_requirements=False,
)


@cache
def prepared(name: str, cache_folder: Path, device: torch.device) -> tuple[Task, nn.Module]:
    """The task of this name and its pre-trained base, read once a process."""
    values = OmegaConf.load(CONF / f"{name}.yaml").task
    options: TaskOptions = TASKS.load(values.name).model_validate(OmegaConf.to_container(values))
    task = options.build(cache_folder)
    base = load_base(options, options.fingerprint(cache_folder), task, cache_folder, device)
    return task, base.model


def adapted(base: nn.Module, adapter: DictConfig, seed: int) -> PeftModel:
    """A copy of the base with PEFT's LoRA layers, starting from the numbers that the harness draws."""
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=list(base.presets[adapter.targets]),
        init_lora_weights="gaussian" if adapter.init == "gaussian" else True,
    )
    model = get_peft_model(copy.deepcopy(base), config)
    scale = adapter.alpha / adapter.rank
    for name, layer in model.base_model.model.named_modules():
        if hasattr(layer, "lora_A"):
            rng = generator(seed, "init", name)
            lora_A, lora_B = INITS.load(adapter.init).draw(BaseWeight(layer.weight), adapter.rank, scale, rng)
            layer.lora_A["default"].weight.data.copy_(lora_A)
            layer.lora_B["default"].weight.data.copy_(lora_B)
    return model


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, domain: Domain, device: torch.device) -> dict[str, float]:
    """Mean scores on the held-out rows of one domain."""
    means = {metric.name for metric in task.metrics if metric.kind == "mean"}
    inputs, targets = domain.held_out.to(device)
    model.eval()
    scores = task.scores(model(inputs), targets)
    model.train()
    return {name: values.float().mean().item() for name, values in scores.items() if name in means}


def train(config: DictConfig, folder: Path) -> dict[str, float]:
    """Train one trial and return its last metrics."""
    device = torch.device(config.device)
    task, base = prepared(config.task, Path(config.cache), device)
    model = adapted(base, config.adapter, config.seed)
    run = wandb.init(
        project="peer",
        mode="offline",
        dir=folder,
        name=folder.name,
        config=OmegaConf.to_container(config),
        settings=WANDB,
    )

    def evaluation() -> dict[str, float]:
        source = evaluate(model, task, task.source, device)
        names = {metric.name: of_source(metric).name for metric in task.metrics}
        return evaluate(model, task, task.target, device) | {names[name]: source[name] for name in source}

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.optimizer.lr, weight_decay=0.0)
    batches = task.target.batches(generator(config.seed, "data"), config.training.batch_size)
    metrics = evaluation()
    run.log(metrics, step=0)
    began = time.perf_counter()
    for step in range(1, config.training.steps + 1):
        inputs, targets = next(batches).to(device)
        loss = task.loss(model(inputs), targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = step == config.training.steps
        if last or step % config.training.log_every == 0:
            metrics = {"train/loss": loss.item(), "train/lr": config.optimizer.lr}
            if last:
                seconds = time.perf_counter() - began
                metrics |= evaluation()
            run.log(metrics, step=step)
    run.finish()
    return metrics | {"train_seconds": seconds}


@hydra.main(version_base="1.3", config_path="conf", config_name="peer")
def main(config: DictConfig) -> float:
    """One Hydra job."""
    torch.set_num_threads(config.threads)
    folder = Path(HydraConfig.get().runtime.output_dir)
    result = train(config, folder)
    text = json.dumps({"config": OmegaConf.to_container(config), "result": result})
    (folder / "result.json").write_text(text)
    return result["eval/loss"]


if __name__ == "__main__":
    main()
