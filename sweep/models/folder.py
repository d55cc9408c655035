"""The folder with a model's files: the user's own, one made of a GGUF file, or one fetched from the Hugging Face hub."""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from sweep.errors import ConfigError
from sweep.files import open_foreign, read_foreign
from sweep.models.gguf import SMOLLM2, folder_of_gguf, smollm2_folder
from sweep.models.hugging_face import CONFIG_FILE, GGUF_HASH, TEMPLATE, TOKENIZER, import_transformers, name_of

WEIGHTS = "*.safetensors"
READ = (CONFIG_FILE, WEIGHTS, "*.safetensors.index.json", *TOKENIZER)
LARGEST_CONFIG, LARGEST_TOKENIZER, LARGEST_WEIGHTS = 2**20, 2**28, 2**40
"""Largest configuration of a model, file of its tokenizer and file of its weights, in bytes."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers")
SIZES = (
    *LAYERS,
    "num_attention_heads",
    "n_head",
    "n_heads",
    "hidden_size",
    "n_embd",
    "d_model",
    "intermediate_size",
    "vocab_size",
)
"""Fields of a model's configuration that have to be whole numbers."""
MOST_LAYERS, LARGEST_SIZE = 1_000, 10**8


@cache
def folder_of(model: str, cache_folder: Path) -> Path:
    """The folder with the files of ``model``: a folder, a ``.gguf`` file, ``smollm2``, or a name on the hub.

    What is fetched or converted is fetched or converted once. Raises ConfigError when there is no such model, or its
    source cannot be reached.
    """
    if (folder := Path(model)).is_dir():
        return _complete(folder, model)
    if model == SMOLLM2:
        return smollm2_folder(cache_folder)
    if model.endswith(".gguf"):
        return folder_of_gguf(Path(model), cache_folder)
    return _complete(_from_hub(model), model)


def _from_hub(model: str) -> Path:
    import_transformers()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        return Path(snapshot_download(model, allow_patterns=[*READ, TEMPLATE]))
    except HFValidationError:
        raise ConfigError(
            [f"task.model = {model!r}: no such folder, and no name on the Hugging Face hub, which looks like org/name"]
        ) from None
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            [
                f"task.model = {model!r}: not a folder, and the Hugging Face hub could not be reached "
                f"({reason}); where there is a network, fetch it with: hf download {model} --local-dir "
                f"FOLDER, and give the folder"
            ]
        ) from None


def _complete(folder: Path, model: str) -> Path:
    if not (folder / CONFIG_FILE).exists():
        raise ConfigError(
            [f"task.model = {model!r}: has no {CONFIG_FILE}; give a folder that save_pretrained has written"]
        )
    if not list(folder.glob(WEIGHTS)):
        raise ConfigError(
            [
                f"task.model = {model!r}: has no {WEIGHTS}; other formats can run code when they are "
                f"read, so save it again with save_pretrained"
            ]
        )
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
    """A hash of what makes the model and its tokenizer: of the GGUF file that it was made of, else of the files read."""
    source = folder / GGUF_HASH
    return source.read_text().strip() if source.exists() else sha256_of_files(folder, READ)


def sha256_of_files(folder: Path, patterns: Iterable[str]) -> str:
    """A hash of the names and contents of the files in ``folder`` that match one of ``patterns``."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        digest.update(f"{path.name}\0".encode())
        try:
            with open_foreign(path, LARGEST_WEIGHTS if path.match(WEIGHTS) else LARGEST_TOKENIZER) as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ConfigError([f"task.model = {name_of(folder)!r}: {path.name}: {error.strerror}"]) from None
    return digest.hexdigest()
