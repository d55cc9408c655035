"""T3: query and value projections, dropout, accumulation, checkpointing, and an adapter that is saved and loaded."""

from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from sweep.adapters.peft.import_ import from_peft
from sweep.params.account import lora as account
from sweep.params.shapes import shape_of
from sweep.rng import generator
from sweep.training.evaluate import evaluate
from sweep.training.loop import Callbacks, Rows, train
from sweep.tutorials.report import Row
from sweep.tutorials.trials import Restored, Trained, Trials, restored

TITLE = "T3: attention, PEFT's configuration and its trainer's options"


def rows(trials: Trials) -> list[Row]:
    """Counts, the start of its layer, the trainer's options, and saving."""
    lora = trials.where({"adapter.kind": "lora"})
    rank8 = lora.where({"adapter.rank": 8})
    one = next(iter(rank8.where({"adapter.dropout": 0.1, "training.checkpointing": False})))
    opt = {rank: account(shape_of("opt-350m"), "q_proj,v_proj", rank) for rank in (8, 16)}
    llama = account(shape_of("Llama-2-7B"), "q_proj,v_proj", 8)
    kept, kept_checkpointed, ratio = _kept(one)
    at_base, at_theirs = _start(one)
    loaded, size = _loaded(one)
    return [
        Row(
            "[2048, 1024], rank 32",
            "96K of 2M",
            f"{32 * (2048 + 1024):,} of {2048 * 1024:,}",
            "holds",
            "96 Ki and 2 Mi, in units of 1,024; 4.6875 %.",
        ),
        Row(
            "opt-350m, q and v, r=8",
            "1,572,864 of 332,769,280, 0.4727 %",
            f"{opt[8].trainable_params:,} of {opt[8].total_params:,}, {opt[8].trainable_ratio:.4%}",
            "wrong",
            f"What it prints is r=16, the rank of its configuration file, not the r=8 of its code: {opt[16].trainable_params:,} "
            f"of {opt[16].total_params:,}, {opt[16].trainable_ratio:.4%} (`python -m sweep.params --model opt-350m --targets q_proj,v_proj --rank 8,16`).",
        ),
        Row(
            "Llama-2-7B, 4096 × 4096, r=8",
            "(shapes only)",
            f"{8 * 2 * 4096:,} a layer, {llama.trainable_params:,} in all",
            "holds",
        ),
        Row(
            "its configuration file",
            "r=16, alpha=32, dropout=0.05",
            _configuration(),
            "holds",
            "`adapter=peft adapter.peft=adapter_config.json` trains what such a file says.",
        ),
        Row(
            "start of its LoRALinear",
            '"h = W₀x + ΔWx"',
            f"loss {at_base:.3f} → {at_theirs:.3f} before any training",
            "incomplete",
            "The excerpt leaves `lora_b` as nn.Linear draws it. torchtune itself, PEFT and our default start B at zero.",
        ),
        Row("rank 8 or 16", "(not compared)", _pair(lora, "adapter.rank", 8, 16), "not said"),
        Row(
            "dropout 0 or 0.1",
            '"lora_dropout"',
            _pair(lora, "adapter.dropout", 0.0, 0.1),
            "not said",
            f"Losses on the held-out part of the second text, after 50 updates, mean and standard deviation over {len(lora) // 2} trials each; "
            f"the base alone has {trials.where({'adapter.kind': 'none'}).mean('eval/loss'):.3f}. Too few updates for a small model to overfit: nothing for dropout to do.",
        ),
        Row("4 batches of 4 accumulated", "as one of 16", f"losses differ by {_accumulation(one):.0e}", "holds"),
        Row(
            "gradient checkpointing",
            "less memory",
            f"{kept_checkpointed / 1e6:.2f} for {kept / 1e6:.2f} MB kept, {_same_bits(lora)}",
            "holds",
            "Bytes that the forward pass keeps for the backward pass, and the history of every pair of trials with and without, "
            f"dropout included. The block is computed twice: {ratio:.1f} times the matrix products.",
        ),
        Row(
            "save, load, infer",
            "only the adapter",
            f"{size / 1e3:.1f} kB; loss after loading {loaded}",
            "holds",
            "`save_adapter=true` leaves a folder that `PeftModel.from_pretrained` loads, and that `adapter=peft adapter.peft=FOLDER` goes on from.",
        ),
    ]


def _configuration() -> str:
    """What we read in the fields of the tutorial's config.json that concern training."""
    fields = {
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "bias": "none",
        "fan_in_fan_out": False,
        "peft_type": "LORA",
    }
    adapter = from_peft(
        fields | {"target_modules": ["q_proj", "v_proj"], "init_lora_weights": True, "task_type": "CAUSAL_LM"}
    )
    return f"rank={adapter.rank}, alpha={adapter.alpha:g}, dropout={adapter.dropout}"


def _pair(lora: Trials, key: str, first: object, second: object) -> str:
    return " against ".join(lora.where({key: level}).spread("eval/loss") for level in (first, second))


def _same_bits(lora: Trials) -> str:
    """Compare the histories of every pair of trials that differ in checkpointing alone."""
    keys = ("adapter.rank", "adapter.dropout", "seed")
    plain, checkpointed = (
        {tuple(one.value(key) for key in keys): one for one in lora.where({"training.checkpointing": state})}
        for state in (False, True)
    )
    pairs = [(one, checkpointed[key]) for key, one in plain.items() if key in checkpointed]
    equal = sum(_history(one.folder) == _history(other.folder) for one, other in pairs)
    return f"the same bits in {equal} of {len(pairs)}"


def _history(folder: Path) -> str:
    return (folder / "history.jsonl").read_text()


def _first_batch(model: Restored) -> tuple[Tensor, Tensor]:
    trial = model.trial
    return next(model.task.target.batches(generator(trial.seed, "data"), trial.training.batch_size))


def _kept(trial: Trained) -> tuple[float, float, float]:
    """Bytes kept by a forward pass without and with checkpointing, weights aside; and the ratio of computed FLOPs."""
    kept, flops = [], []
    for checkpointing in (False, True):
        model = restored(trial, untrained=True)
        model.folded.model.train()
        model.folded.model.checkpointing = checkpointing
        weights = {tensor.untyped_storage().data_ptr() for tensor in model.folded.model.state_dict().values()}
        storages: dict[int, int] = {}

        def keep(tensor: Tensor, weights: set[int] = weights, storages: dict[int, int] = storages) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        inputs, targets = _first_batch(model)
        with FlopCounterMode(display=False) as counter:
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = model.task.loss(model.folded.outputs(inputs, sees=[0]), targets).mean()
            loss.backward()
        kept.append(sum(storages.values()))
        flops.append(counter.get_total_flops())
    return kept[0], kept[1], flops[1] / flops[0]


def _start(trial: Trained) -> tuple[float, float]:
    """The evaluation loss at the start, with B = 0 and with B as ``nn.Linear`` draws it."""
    model = restored(trial, untrained=True)
    [zero] = evaluate(model.folded, model.task, model.task.target)
    rng = torch.Generator().manual_seed(0)
    for layer in model.folded.layers.values():
        bound = layer.lora_B.shape[-1] ** -0.5
        layer.lora_B.data.uniform_(-bound, bound, generator=rng)
    [drawn] = evaluate(model.folded, model.task, model.task.target)
    return zero["eval/loss"], drawn["eval/loss"]


def _accumulation(trial: Trained) -> float:
    """The largest relative difference of the training losses of accumulated batches and of their union."""
    losses = []
    for settings in ({"batch_size": 4, "accumulation": 4}, {"batch_size": 16, "accumulation": 1}):
        model = restored(trial, untrained=True, steps=20, log_every=1, eval_every=None, **settings)
        for layer in model.folded.layers.values():
            layer.dropout = (0.0,)  # masks are drawn for each batch
        how = model.trial
        own: list[float] = []

        def keep(step: int, rows: Rows, own: list[float] = own) -> None:
            own.extend(row["train/loss"] for row in rows if row is not None)

        callbacks = Callbacks(on_rows=keep)
        train(model.folded, model.task, model.task.target, [how.optimizer], how.training, [how.seed], callbacks)
        losses.append(torch.tensor(own))
    return ((losses[0] - losses[1]).abs() / losses[1]).max().item()


def _loaded(trial: Trained) -> tuple[str, int]:
    """What a fresh base with the loaded adapter scores, and the size of the adapter's folder."""
    model = restored(trial)
    [scores] = evaluate(model.folded, model.task, model.task.target)
    recorded = trial.value("eval/loss")
    equal = (
        "the recorded one, bit for bit" if scores["eval/loss"] == recorded else f"{scores['eval/loss']} for {recorded}"
    )
    return equal, sum(file.stat().st_size for file in (trial.folder / "adapter").iterdir())
