"""Hugging Face causal language models, unmodified but for three things: names for groups of their layers, logits
as the one output, and plain linear layers in the place of GPT-2's transposed ones.
"""  # noqa: D205

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sweep.errors import ConfigError
from sweep.files import open_foreign, read_foreign
from sweep.models.model import Model

CONFIG_FILE = "config.json"
WEIGHTS = "*.safetensors"
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
READ = (CONFIG_FILE, WEIGHTS, "*.safetensors.index.json", *TOKENIZER)
LARGEST_CONFIG, LARGEST_TOKENIZER, LARGEST_WEIGHTS = 2**20, 2**28, 2**40
"""Bytes of a model's configuration, of a file of its tokenizer and of its weights."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers")
SIZES = (
    *LAYERS, "num_attention_heads", "n_head", "n_heads", "hidden_size", "n_embd", "d_model", "intermediate_size", "vocab_size",
)  # fmt: skip
"""Fields of a model's configuration that have to be whole numbers."""
MOST_LAYERS, LARGEST_SIZE = 1_000, 10**8
QUERY_AND_VALUE = {"q_proj", "v_proj", "q_lin", "v_lin", "query", "value"}


class FromConv1D(nn.Linear):
    """A linear layer that the model's own files hold transposed, as GPT-2's ``Conv1D``."""


@cache
def folder_of(model: str) -> Path:
    """The folder with the files of ``model``, which is a folder or a name on the hub, fetched there once.

    Raises ConfigError when there is neither, or the hub cannot be reached.
    """
    if (folder := Path(model)).is_dir():
        return _complete(folder, model)
    import_transformers()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        return _complete(Path(snapshot_download(model, allow_patterns=list(READ))), model)
    except HFValidationError:
        raise ConfigError([f"task.model = {model!r}: no such folder, and no name on the Hugging Face hub, which looks like org/name"]) from None  # fmt: skip
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError([f"task.model = {model!r}: no such folder, and not to be had from the Hugging Face hub ({reason}); where there is a network, fetch it with: hf download {model} --local-dir FOLDER, and give the folder"]) from None  # fmt: skip


def name_of(folder: Path) -> str:
    """What a user calls the model in ``folder``: its name on the hub, if it was fetched from there."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


def _complete(folder: Path, model: str) -> Path:
    if not (folder / CONFIG_FILE).exists():
        raise ConfigError([f"task.model = {model!r}: has no {CONFIG_FILE}; give a folder that save_pretrained has written"])  # fmt: skip
    if not list(folder.glob(WEIGHTS)):
        raise ConfigError([f"task.model = {model!r}: has no {WEIGHTS}; other formats can run code when they are read, so save it again with save_pretrained"])  # fmt: skip
    try:
        values = dict(json.loads(read_foreign(folder / CONFIG_FILE, LARGEST_CONFIG)))
    except OSError as error:
        raise ConfigError([f"task.model = {model!r}: {CONFIG_FILE}: {error.strerror}"]) from None
    except (TypeError, ValueError, RecursionError) as error:
        said = f"{CONFIG_FILE}: is not the JSON of a model's configuration ({error})"
        raise ConfigError([f"task.model = {model!r}: {said}"]) from None
    for field in SIZES:
        most = MOST_LAYERS if field in LAYERS else LARGEST_SIZE
        if field in values and not (type(values[field]) is int and 1 <= values[field] <= most):
            said = f"{CONFIG_FILE}: {field} = {values[field]!r}: must be a whole number from 1 to {most:,}"
            raise ConfigError([f"task.model = {model!r}: {said}"])
    return folder


@cache
def sha256_of(folder: Path) -> str:
    """A hash of what makes the model and its tokenizer: the files that are read, without their place."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in READ for path in folder.glob(pattern)}):
        digest.update(f"{path.name}\0".encode())
        try:
            with open_foreign(path, LARGEST_WEIGHTS if path.match(WEIGHTS) else LARGEST_TOKENIZER) as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ConfigError([f"task.model = {name_of(folder)!r}: {path.name}: {error.strerror}"]) from None
    return digest.hexdigest()


@cache
def configuration(folder: Path) -> tuple[Any, tuple[str, ...]]:
    """The model's configuration without dropout or cache, and the names and rates of the dropouts set to 0."""
    transformers = import_transformers()
    with _readable(folder):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if getattr(config, "quantization_config", None):
        raise ConfigError([f"task.model = {name_of(folder)!r}: is quantised; give the model in full precision"])
    if config.get_text_config() is not config:
        raise ConfigError([f"task.model = {name_of(folder)!r}: reads more than text; give a model of text alone"])
    config.use_cache = False
    return config, without_dropout(config)


def without_dropout(config: Any) -> tuple[str, ...]:
    """Set every dropout rate of ``config``, in place, to 0, and say which there were."""
    values = config.to_dict().items()
    rates = {name: rate for name, rate in values if "drop" in name and isinstance(rate, float) and rate}
    for name in rates:
        setattr(config, name, 0.0)
    return tuple(f"{name}={rate:g}" for name, rate in rates.items())


def skeleton(folder: Path) -> Model:
    """The architecture with new weights, on torch's default device."""
    transformers = import_transformers()
    config, _ = configuration(folder)
    with _readable(folder):
        return as_model(transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32))


@cache
def load(folder: Path) -> Model:
    """The model with its weights, in float32; loaded once in a process, and shared.

    Raises ConfigError for weights that are missing, and for a model whose rows or positions are not
    independent of those that follow.
    """
    transformers = import_transformers()
    config, _ = configuration(folder)
    with _readable(folder):
        network, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    if missing := sorted(info["missing_keys"]):
        raise ConfigError([f"task.model = {name_of(folder)!r}: its files lack {len(missing)} weights, such as {missing[0]}; is it another kind of model?"])  # fmt: skip
    model = as_model(network).requires_grad_(False)
    check_independence(model, name_of(folder))
    return model


@cache
def tokenizer_of(folder: Path) -> Any:
    """The model's own tokenizer. Raises ConfigError where there is none, or it is damaged."""
    if not any(True for pattern in TOKENIZER for _ in folder.glob(pattern)):
        raise ConfigError([f"task.model = {name_of(folder)!r}: has no tokenizer; put it there with tokenizer.save_pretrained"])  # fmt: skip
    transformers = import_transformers()
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raises nothing narrower for a damaged file
        reason = str(error).splitlines()[0]
        raise ConfigError([f"task.model = {name_of(folder)!r}: its tokenizer cannot be loaded: {reason}"]) from None  # fmt: skip


def as_model(network: nn.Module) -> Model:
    """Give ``network``, in place, what ``Model`` asks for. It keeps its own class and the names of its layers."""
    for name, module in list(network.named_modules()):
        if type(module).__name__ == "Conv1D":
            network.set_submodule(name, _untransposed(module))
    head = getattr(network, "get_output_embeddings", lambda: None)()
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear) and module is not head]
    attention = [name for name in layers if "att" in name.rpartition(".")[0]]
    groups = {
        "all_linear": layers,
        "attention": attention,
        "mlp": [name for name in layers if name not in attention],
        "qv": [name for name in attention if name.rpartition(".")[2] in QUERY_AND_VALUE],
    }
    network.register_forward_hook(_logits)
    model = cast(Model, network)
    model.presets = {group: names for group, names in groups.items() if names}
    model.stages, model.can_checkpoint, model.checkpointing = ("",), False, False
    return model


def import_transformers() -> Any:
    """The library, without its progress bars and warnings. Raises ConfigError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise ConfigError(["task.name = 'causal_lm': needs Hugging Face's transformers; install it with: pip install 'transformers>=5' (the extra [hf])"]) from None  # fmt: skip
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return transformers


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Turn what transformers says about a model's files into one line."""
    try:
        yield
    except Exception as error:  # a damaged value leads to errors of every type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError([f"task.model = {name_of(folder)!r}: cannot be used as a causal language model: {reason}"]) from None  # fmt: skip


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
        raise ConfigError([f"task.model = {name!r}: computes another result each time; it has randomness besides dropout"])  # fmt: skip
    if (together[0] - alone[0]).abs().max() > tolerance:
        raise ConfigError([f"task.model = {name!r}: the rows of a batch change each other, so trials could not be told apart"])  # fmt: skip
    if (alone[0, 0] - before_others).abs().max() > tolerance:
        raise ConfigError([f"task.model = {name!r}: sees the tokens that it is to predict; it is no causal model"])
