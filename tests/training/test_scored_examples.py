"""Test examples: which they are, and what each trial scores on each of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sweep.adapters.fold import Folded
from sweep.scores import Scores
from sweep.tasks.mnist.task import Mnist, mnist
from sweep.tasks.task import Batch, Division, Examples, division_of, with_test_examples
from sweep.training.evaluate import evaluate_both, has_validation, measure_test
from sweep.training.examples import figures_of_test, identify, scores_of
from tests.support.builders import (
    EXACT,
    NOWHERE,
    InOrder,
    attach,
    digits,
    lora,
    mlp,
    pairs,
    randn,
    squared_error,
)

ADAPTERS = (lora(init="both_random", rank=1), lora(init="normal", rank=3), lora(init="pissa"))


@dataclass(frozen=True)
class Weighted(Mnist):
    """Digits of which each counts as much as its class says."""

    def weights(self, targets: Tensor) -> Tensor:
        return targets.float() / 4


def scored(task: Mnist, folded: Folded) -> list[Mapping[str, Scores]]:
    return scores_of(task, measure_test(folded, task), identify(task))  # type: ignore[return-value]


def test_scores_of_examples_sum_to_the_figures_of_the_test() -> None:
    whole = mnist(digits(), NOWHERE)
    task = Weighted(whole.source, whole.target, [24])
    folded = attach(mlp(784, 24, 10), *ADAPTERS)
    figures = figures_of_test(task, measure_test(folded, task))
    for own, row in zip(scored(task, folded), figures, strict=True):
        assert list(own) == ["target", "source"]
        names = {"target": ["test/loss", "test/accuracy"], "source": ["test/source_loss", "test/source_accuracy"]}
        for domain, scores in own.items():
            assert list(scores.sums) == names[domain]
            for name, sums in scores.sums.items():
                assert sums.dtype == scores.weight.dtype == np.float32
                assert sums.sum(dtype=float) / scores.weight.sum(dtype=float) == pytest.approx(row[name], rel=1e-5)
    assert {name for name in figures[0] if "wrong" not in name} == {*names["target"], *names["source"]}


def test_scores_of_a_trial_do_not_depend_on_its_pack() -> None:
    task, base = mnist(digits(), NOWHERE), mlp(784, 24, 10)
    packed = scored(task, attach(base, *(lora(init="both_random", rank=rank) for rank in (3, 4))))
    for rank, own in zip((3, 4), packed, strict=True):
        [alone] = scored(task, attach(base, lora(init="both_random", rank=rank)))
        for domain, scores in own.items():
            assert (scores.example == alone[domain].example).all()
            for name, sums in scores.sums.items():
                np.testing.assert_allclose(sums, alone[domain].sums[name], rtol=0 if EXACT else 1e-4)


def test_examples_are_known_by_their_content_and_equal_ones_by_their_number() -> None:
    inputs, targets = randn(4, 3), torch.tensor([0, 1, 2, 3])
    rows = [0, 1, 0, 2, 0]
    first = identified(Batch(inputs[rows], targets[rows]))
    assert len(set(first)) == 5
    assert identified(Batch(inputs[[2, 1, 0]], targets[[2, 1, 0]])) == [first[3], first[1], first[0]]
    assert identified(Batch(inputs[:1], targets[1:2])) != first[:1]
    assert identified(Batch(inputs[[0, 0, 0]], targets[[0, 0, 0]])) == [first[0], first[2], first[4]]


def identified(held_out: Batch) -> list[int]:
    examples = Examples(held_out, held_out)
    found = identify(Mnist(examples, examples, []))["target"]
    assert found.cluster.tolist() == list(range(len(found.example)))
    return [int(number) for number in found.example]


def test_division_by_position_has_a_span_for_each_part_of_a_row() -> None:
    division = Division.by_position(torch.tensor([[4, 4, 4, 2, -1], [2, 2, -1, 0, 0]]), torch.tensor([7, 0, 8, 0, 7]))
    assert division.spans is not None
    assert division.spans.tolist() == [[0, 3], [3, 4], [5, 7], [8, 10]]
    assert division.cluster.tolist() == [7, 8, 8, 7]


def test_division_of_rows_counts_positions_through_these_rows() -> None:
    whole = Division.by_position(torch.tensor([[4, 4, 4], [2, 2, -1], [0, 1, 1], [3, 3, 3]]))
    found = whole.of_rows(torch.tensor([0, 2]), size=3)
    assert found.spans is not None
    assert found.spans.tolist() == [[0, 3], [3, 4], [4, 6]]
    assert found.cluster.tolist() == [4, 0, 1]


def test_with_test_examples_keeps_as_few_rows_as_have_them() -> None:
    rows = torch.arange(40).view(10, 4)
    division = Division.by_position(torch.arange(40).view(10, 4) // 2)  # two examples a row
    domain = Examples(Batch(rows, rows), Batch(rows, rows), positions=4, division=division)
    few = with_test_examples(domain, 5)
    assert few.held_out.targets[:, 0].tolist() == [0, 16, 36]
    assert division_of(few).cluster.tolist() == [0, 1, 8, 9, 18, 19]
    assert len(with_test_examples(domain, 100).held_out.targets) == 10
    each = replace(domain, division=None)
    assert with_test_examples(each, 5) is each


def test_validation_examples_are_evaluated_and_test_examples_are_tested() -> None:
    train, validation, held_out = pairs(12, 8, rows=30, batches=3)
    domain = Examples(train, held_out, validation=validation)
    task = replace(squared_error(), source=domain, target=domain)
    folded = attach(mlp(12, 8), lora(init="both_random"))
    expected = {
        name: (folded.merged(0)(part.inputs) - part.targets).square().mean().item()
        for name, part in (("eval/loss", validation), ("test/loss", held_out))
    }
    measured = evaluate_both(folded, task)[0] | figures_of_test(task, measure_test(folded, task))[0]
    assert has_validation(task)
    assert {name: measured[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_domain_that_knows_nothing_of_validation_is_evaluated_on_its_held_out_rows() -> None:
    domain = InOrder(pairs(12, 8, rows=30, batches=2))
    task = replace(squared_error(), source=domain, target=domain)  # type: ignore[arg-type]
    folded = attach(mlp(12, 8), lora(init="both_random"))
    assert not has_validation(task)
    [evaluated], [tested] = evaluate_both(folded, task), figures_of_test(task, measure_test(folded, task))
    assert list(evaluated.values()) == list(tested.values())
