"""The folder with a model's files: the user's own, one made of a GGUF file, or one fetched from the Hugging Face hub."""

import hashlib
from functools import cache
from pathlib import Path

from sweep.errors import ConfigError
from sweep.models.gguf import SMOLLM2, folder_of_gguf, smollm2_folder
from sweep.models.hugging_face import CONFIG_FILE, GGUF_HASH, TEMPLATE, TOKENIZER, import_transformers

WEIGHTS = "*.safetensors"
READ = (CONFIG_FILE, WEIGHTS, "*.safetensors.index.json", *TOKENIZER)


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
        raise ConfigError([f"task.model = {model!r}: no such folder, and no name on the Hugging Face hub, which looks like org/name"]) from None  # fmt: skip
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError([f"task.model = {model!r}: not a folder, and the Hugging Face hub could not be reached ({reason}); where there is a network, fetch it with: hf download {model} --local-dir FOLDER, and give the folder"]) from None  # fmt: skip


def _complete(folder: Path, model: str) -> Path:
    if not (folder / CONFIG_FILE).exists():
        raise ConfigError([f"task.model = {model!r}: has no {CONFIG_FILE}; give a folder that save_pretrained has written"])  # fmt: skip
    if not list(folder.glob(WEIGHTS)):
        raise ConfigError([f"task.model = {model!r}: has no {WEIGHTS}; other formats can run code when they are read, so save it again with save_pretrained"])  # fmt: skip
    return folder


@cache
def sha256_of(folder: Path) -> str:
    """A hash of what makes the model and its tokenizer: of the GGUF file that it was made of, else of the files read."""
    if (source := folder / GGUF_HASH).exists():
        return source.read_text().strip()
    digest = hashlib.sha256()
    for path in sorted({path for pattern in READ for path in folder.glob(pattern)}):
        digest.update(f"{path.name}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
