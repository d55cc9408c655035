"""Whether PEFT's own model has a place for every tensor of a saved adapter: it renames some layers as it loads them."""

import json
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from safetensors.torch import load
from torch import nn

from sweep.adapters.peft.export import CONFIG_FILE, WEIGHTS_FILE


def placement_note(files: Mapping[str, bytes], network: nn.Module) -> str:
    """What is wrong with an adapter in PEFT; empty where nothing is, or where PEFT is not installed to be asked.

    Args:
        files: the adapter's files by name.
        network: the base as its own library makes it, on the meta device; it is changed.

    """
    if find_spec("peft") is None:
        return ""
    import peft

    tensors = load(files[WEIGHTS_FILE["lora"]])
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            model = peft.get_peft_model(network, peft.LoraConfig(**json.loads(files[CONFIG_FILE])))
            named = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
            result: Any = peft.set_peft_model_state_dict(model, named)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"PEFT {peft.__version__} cannot load adapter/: {reason}"
    unplaced = result.unexpected_keys
    if not unplaced:
        return ""
    return (
        f"PEFT {peft.__version__} has no place for {len(unplaced)} of the {len(tensors)} tensors in adapter/, such as "
        f"{sorted(unplaced)[0]}: there the adapter computes something else"
    )
