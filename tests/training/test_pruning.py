"""Successive halving: who stays, by hand."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from sweep.training.pruning import Pruning

NAN = math.nan


def no_model(_: Sequence[int]) -> Any:
    raise AssertionError("who stays is decided without a model")


def pruning(factor: int, cells: Sequence[Hashable], first: int = 50) -> Pruning:
    return Pruning(factor, first, cells, no_model)


@pytest.mark.parametrize(("factor", "rungs"), [(2, [50, 100, 200, 400]), (3, [50, 150, 450])])
def test_pruning_rungs_are_as_many_times_later_as_fewer_survive(factor: int, rungs: list[int]) -> None:
    assert [step for step in range(1, 500) if pruning(factor, "ab").is_rung(step)] == rungs


@pytest.mark.parametrize(
    ("factor", "losses", "survivors"),
    [
        (2, [0.4, 0.1, 0.3, 0.2], [1, 3]),
        (2, [0.4, 0.1, 0.3], [1, 2]),  # the half of three is rounded up
        (3, [0.4, 0.1, 0.3, 0.2], [1, 3]),
        (4, [0.4, 0.1, 0.3, 0.2], [1]),
        (2, [0.2, 0.2, 0.2, 0.2], [0, 1]),
        (2, [NAN, 0.1, math.inf, 0.2], [1, 3]),
        (4, [NAN, NAN], [0]),
    ],
)
def test_pruning_keeps_the_best(factor: int, losses: list[float], survivors: list[int]) -> None:
    assert pruning(factor, range(len(losses))).survivors(range(len(losses)), losses) == survivors


def test_pruning_keeps_or_drops_replicates_together_by_their_mean() -> None:
    # Means: a 0.5, b 0.4, c not finite, d 0.45; the luckiest and the unluckiest seed are both in a.
    cells = ["a", "b", "c", "a", "b", "c", "d", "d"]
    losses = [0.1, 0.4, 0.2, 0.9, 0.4, NAN, 0.45, 0.45]
    assert pruning(2, cells).survivors(range(8), losses) == [1, 4, 6, 7]


def test_pruning_compares_only_survivors() -> None:
    assert pruning(2, "aabbccdd").survivors([2, 3, 6, 7], [0.2, 0.2, 0.1, 0.1]) == [6, 7]
