"""Hugging Face causal language models, unmodified except in four ways: names for groups of their layers, several rows
in one block as an input, logits as the one output, and plain linear layers in the place of GPT-2's transposed ones.
"""  # noqa: D205

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sweep.errors import ConfigError
from sweep.models.model import Model

CONFIG_FILE = "config.json"
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
TEMPLATE = "chat_template.jinja"
GGUF_HASH = "gguf.sha256"
"""In a folder that was made of a GGUF file, the SHA-256 of that file."""
MISSING = (
    "task.name = 'causal_lm': needs Hugging Face's transformers; install it with: pip install 'transformers>=5' "
    "(the extra [hf])"
)
QUERY_AND_VALUE = {"q_proj", "v_proj", "q_lin", "v_lin", "query", "value"}


class FromConv1D(nn.Linear):
    """A linear layer that the model's own files hold transposed, as GPT-2's ``Conv1D``."""


def name_of(folder: Path) -> str:
    """What a user calls the model in ``folder``: its name on the hub, if it was fetched from there."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


@cache
def configuration(folder: Path) -> tuple[Any, tuple[str, ...]]:
    """The model's configuration without dropout or cache, and the names and rates of the dropouts set to 0."""
    transformers = import_transformers()
    with readable(name_of(folder)):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if getattr(config, "quantization_config", None):
        raise ConfigError([f"task.model = {name_of(folder)!r}: is quantised; give the model in full precision"])
    if config.get_text_config() is not config:
        raise ConfigError([f"task.model = {name_of(folder)!r}: reads more than text; give a text-only model"])
    config.use_cache = False
    return config, without_dropout(config)


def without_dropout(config: Any) -> tuple[str, ...]:
    """Set every dropout rate of ``config``, in place, to 0, and say which there were."""
    values = config.to_dict().items()
    rates = {name: rate for name, rate in values if "drop" in name and isinstance(rate, float) and rate}
    for name in rates:
        setattr(config, name, 0.0)
    return tuple(f"{name}={rate:g}" for name, rate in rates.items())


def unmodified(folder: Path) -> nn.Module:
    """The architecture as transformers makes it, with new weights, on torch's default device."""
    transformers = import_transformers()
    config, _ = configuration(folder)
    with readable(name_of(folder)):
        network: nn.Module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return network


def skeleton(folder: Path) -> Model:
    """The architecture with new weights, on torch's default device."""
    network = unmodified(folder)
    with readable(name_of(folder)):
        return as_model(network)


@cache
def load(folder: Path) -> Model:
    """The model with its weights, in float32; loaded once in a process, and shared.

    Raises ConfigError for weights that are missing, and for a model whose rows or positions are not
    independent of those that follow.
    """
    transformers = import_transformers()
    config, _ = configuration(folder)
    with readable(name_of(folder)):
        network, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    if missing := sorted(info["missing_keys"]):
        raise ConfigError(
            [
                f"task.model = {name_of(folder)!r}: its files lack {len(missing)} weights, such as "
                f"{missing[0]}; is it another kind of model?"
            ]
        )
    model = as_model(network).requires_grad_(False)
    check_independence(model, name_of(folder))
    return model


@cache
def tokenizer_of(folder: Path) -> Any:
    """The model's own tokenizer. Raises ConfigError where there is none, or it is damaged."""
    if not any(True for pattern in TOKENIZER for _ in folder.glob(pattern)):
        raise ConfigError(
            [f"task.model = {name_of(folder)!r}: has no tokenizer; put it there with tokenizer.save_pretrained"]
        )
    transformers = import_transformers()
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raises nothing narrower for a damaged file
        reason = str(error).splitlines()[0]
        raise ConfigError([f"task.model = {name_of(folder)!r}: its tokenizer cannot be loaded: {reason}"]) from None


def end_tokens(folder: Path) -> frozenset[int]:
    """The tokens that end an answer: those of the model's configuration and its tokenizer's."""
    config, _ = configuration(folder)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return frozenset({*ends, tokenizer_of(folder).eos_token_id} - {None})


def as_model(network: nn.Module) -> Model:
    """Give ``network``, in place, what ``Model`` asks for. It keeps its own class and the names of its layers."""
    for name, module in list(network.named_modules()):
        if type(module).__name__ == "Conv1D":
            network.set_submodule(name, _untransposed(module))
    head = _head(network)
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear) and module is not head]
    attention = [name for name in layers if "att" in name.rpartition(".")[0]]
    groups = {
        "all_linear": layers,
        "attention": attention,
        "mlp": [name for name in layers if name not in attention],
        "qv": [name for name in attention if name.rpartition(".")[2] in QUERY_AND_VALUE],
    }
    network.register_forward_pre_hook(_read_blocks, with_kwargs=True)
    network.register_forward_hook(_logits)
    if isinstance(head, nn.Linear):
        head.register_forward_pre_hook(_where_needed)
    model = cast(Model, network)
    model.presets = {group: names for group, names in groups.items() if names}
    model.stages, model.can_checkpoint, model.checkpointing = ("",), False, False
    return model


def import_transformers() -> Any:
    """The library, without its progress bars and warnings. Raises ConfigError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise ConfigError([MISSING]) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return transformers


def transformers_version() -> str:
    """The version of the library, which is not imported. Raises ConfigError where it is not installed."""
    try:
        return version("transformers")
    except PackageNotFoundError:
        raise ConfigError([MISSING]) from None


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what transformers says about the files of model ``name`` into one line."""
    try:
        yield
    except Exception as error:  # a damaged value leads to errors of every type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError([f"task.model = {name!r}: cannot be used as a causal language model: {reason}"]) from None


def _read_blocks(network: Any, arguments: tuple[Any, ...], others: dict[str, Any]) -> Any:
    """Let the model also take blocks (N, 3, S): tokens, their positions, and 1 where logits are needed.

    From positions that begin again, transformers makes a causal mask for each row of a block, if there is no cache. Of
    a linear head, adapted ones apart, the logits are then those of the needed positions alone (number of them, V).
    """
    inputs, *further = arguments
    tokens, needed = inputs, None
    if inputs.ndim == 3:
        tokens, positions, needed = inputs.long().unbind(1)
        others = {**others, "position_ids": positions, "use_cache": False}
    if isinstance(head := _head(network), nn.Linear):
        head.needed = None if needed is None else needed.bool()  # type: ignore[assignment]
    return (tokens, *further), others


def _where_needed(head: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (x_N_S_D,) = arguments
    needed = getattr(head, "needed", None)
    return arguments if needed is None else (x_N_S_D[needed],)


def _head(network: nn.Module) -> nn.Module | None:
    return getattr(network, "get_output_embeddings", lambda: None)()


def _logits(_network: nn.Module, _inputs: Any, output: Any) -> Tensor:
    return output.logits


def _untransposed(conv: Any) -> FromConv1D:
    in_features, out_features = conv.weight.shape
    linear = FromConv1D(in_features, out_features, device="meta")
    linear.weight, linear.bias = nn.Parameter(conv.weight.detach().T.contiguous()), conv.bias
    return linear


@torch.no_grad()
def check_independence(model: Model, name: str) -> None:
    """Compare three rows with one of them alone, and the outcome of a first token before others that follow it."""
    config = cast(Any, model).config
    tokens = torch.arange(3 * 8).view(3, 8) % config.vocab_size
    model.train()
    together, alone, again = model(tokens), model(tokens[:1]), model(tokens)
    changed = tokens[:1].clone()
    changed[0, 1:] = changed[0, 1:].add(config.vocab_size // 2) % config.vocab_size
    before_others = model(changed)[0, 0]
    model.eval()
    tolerance = 1e-4 * float(together.abs().max())
    if not torch.equal(together, again):
        raise ConfigError(
            [f"task.model = {name!r}: computes another result each time; it has randomness besides dropout"]
        )
    if (together[0] - alone[0]).abs().max() > tolerance:
        raise ConfigError(
            [f"task.model = {name!r}: the rows of a batch change each other, so trials could not be told apart"]
        )
    if (alone[0, 0] - before_others).abs().max() > tolerance:
        raise ConfigError([f"task.model = {name!r}: is not causal: later tokens change earlier predictions"])


@torch.no_grad()
def takes_blocks(model: Model) -> bool:
    """Whether two rows in one block give what each gives alone.

    Families whose positions are not given from outside (ALiBi) or that carry a state along (Mamba) cannot.
    """
    tokens = torch.arange(2 * 6).view(2, 6) % cast(Any, model).config.vocab_size
    positions = torch.arange(6).repeat(2)
    try:
        together = model(torch.stack([tokens.flatten(), positions, torch.ones_like(positions)])[None])
    except TypeError:  # there is no position_ids
        return False
    alone = model(tokens).flatten(0, 1)
    return bool((together.view(alone.shape) - alone).abs().max() <= 1e-4 * alone.abs().max())
