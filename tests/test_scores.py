"""The file of test examples: what is written is read again, and what is something else is refused."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from sweep import scores
from sweep.scores import Scores

SCORED = Scores(
    example=np.array([7, 2**63 + 1], np.uint64),
    cluster=np.array([0, 0], np.int32),
    weight=np.array([3.0, 1.0], np.float32),
    sums={"test/loss": np.array([1.5, 0.25], np.float32)},
)


def test_scores_are_read_as_written(tmp_path: Path) -> None:
    scores.write({"target": SCORED, "source": SCORED}, tmp_path / "scores.safetensors")
    found = scores.read(tmp_path / "scores.safetensors")
    assert list(found) == ["target", "source"]
    for own in found.values():
        assert (own.example == SCORED.example).all()
        assert (own.cluster == SCORED.cluster).all()
        assert (own.weight == SCORED.weight).all()
        assert (own.sums["test/loss"] == SCORED.sums["test/loss"]).all()


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"elsewhere.weight": np.ones(2, np.float32)},
        {"target.weight": np.ones(2, np.float32)},
        {"example": np.zeros(0, np.uint64), "cluster": np.zeros(0, np.int32), "weight": np.zeros(0, np.float32)},
        {"example": np.zeros(2, np.uint64), "cluster": np.zeros(2, np.int32), "weight": -np.ones(2, np.float32)},
        {"example": np.zeros(2, np.int32), "cluster": np.zeros(2, np.int32), "weight": np.ones(2, np.float32)},
        {"example": np.zeros(2, np.uint64), "cluster": np.zeros(1, np.int32), "weight": np.ones(2, np.float32)},
    ],
)
def test_scores_of_something_else_are_refused(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    named = {name if "." in name else f"target.{name}": values for name, values in tensors.items()}
    path = tmp_path / "scores.safetensors"
    path.write_bytes(save(named))
    with pytest.raises(ValueError, match="not scores of examples"):
        scores.read(path)


def test_scores_of_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.safetensors"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="not scores of examples"):
        scores.read(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic link"):
        scores.read(link)
