"""What a trial has trained, in files that PEFT and Hugging Face load."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sweep.adapters.fold import Folded, export
from sweep.adapters.options import AdapterOptions, Kind
from sweep.adapters.rank import alpha_of, rank_of
from sweep.models.hugging_face import FromConv1D

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE: dict[Kind, str] = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}
PREFIX = "base_model.model."


def files(folded: Folded, trial: int, adapter: AdapterOptions, base: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of one trial by name, the weights last.

    A LoRA is an adapter that ``PeftModel.from_pretrained`` puts on the untouched base, a full fine-tuning the
    weights under the model's own names; an untouched base leaves nothing.

    Args:
        folded: the trained pack.
        trial: the trial's position in it.
        adapter: what it trained.
        base: fields of the PEFT configuration that say what the base is.

    """
    match adapter.kind:
        case "lora":
            config, tensors = to_peft(folded, trial, adapter)
            text = json.dumps(config | dict(base), indent=2, sort_keys=True)
            return {CONFIG_FILE: text.encode() + b"\n", WEIGHTS_FILE["lora"]: _saved(tensors)}
        case "full":
            return {WEIGHTS_FILE["full"]: _saved(_as_in_files(export(folded, trial), folded.model))}
        case "none":
            return {}


def to_peft(folded: Folded, trial: int, adapter: AdapterOptions) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors of a LoRA under PEFT's names.

    An initialisation that moved s·B₀A₀ out of the base becomes a LoRA of rank 2r with the factors [A; A₀] and
    [B, −B₀] and the same s, so that the base stays as it was and nothing is decomposed again at loading.
    """
    own = _as_in_files(export(folded, trial), folded.model)
    targets = targets_of(folded, trial)
    growth = 1
    for name in targets:
        if moved := folded.layers[name].moved_factors(trial):
            growth, (moved_A, moved_B) = 2, moved
            own[f"{name}.lora_A"] = torch.cat([own[f"{name}.lora_A"], moved_A])
            own[f"{name}.lora_B"] = torch.cat([own[f"{name}.lora_B"], -moved_B], dim=1)
    tensors = {key_of(name, targets): tensor for name, tensor in own.items()}
    sizes = {name: _rank_and_alpha(adapter, name, growth) for name in targets}
    rank, alpha = _rank_and_alpha(adapter.model_copy(update={"rank_pattern": None, "alpha_pattern": None}), "", growth)
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{re.escape(name)}": own for name, (own, _) in sizes.items() if own != rank},
        "alpha_pattern": {f"^{re.escape(name)}": own for name, (_, own) in sizes.items() if own != alpha},
        "use_rslora": adapter.scaling == "alpha/sqrt_rank",
        "use_dora": adapter.dora,
        "target_modules": targets,
        "modules_to_save": list(folded.saved) or None,
        "lora_dropout": adapter.dropout,
        "bias": adapter.bias,
        "fan_in_fan_out": any(isinstance(folded.layers[name].base, FromConv1D) for name in targets),
        "init_lora_weights": True,
    }
    return config, tensors


def targets_of(folded: Folded, trial: int) -> list[str]:
    """The names of the layers that a trial adapts."""
    return [name for name, layer in folded.layers.items() if layer.ranks[trial]]


def key_of(name: str, targets: Collection[str]) -> str:
    """The key under which PEFT keeps the trained tensor ``name`` of a trial that adapts ``targets``."""
    layer, part = name.rsplit(".", 1)
    if part in ("lora_A", "lora_B"):
        return f"{PREFIX}{name}.weight"
    return f"{PREFIX}{layer}.base_layer.{part}" if part == "bias" and layer in targets else PREFIX + name


def _as_in_files(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """``tensors``, with whole weights transposed where the model's own files hold them so."""
    transposed = transposed_in_files(model)
    return {name: tensor.T if name in transposed else tensor for name, tensor in tensors.items()}


def transposed_in_files(model: nn.Module) -> set[str]:
    """The whole weights that the model's own files, and so PEFT's, hold transposed."""
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, FromConv1D)}


def _rank_and_alpha(adapter: AdapterOptions, name: str, growth: int) -> tuple[int, float]:
    """The rank of one layer when it has grown, and the alpha from which PEFT computes the same scaling."""
    rank, alpha = growth * rank_of(adapter, name), alpha_of(adapter, name)
    alpha *= {"alpha/rank": growth, "alpha/sqrt_rank": growth**0.5, "alpha": rank}[str(adapter.scaling)]
    return rank, int(alpha) if float(alpha).is_integer() else alpha


def _saved(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"})
