"""Numbers that published tutorials print, or should have printed, reproduced by the harness.

T0 is a toy layer 64 → 10, T1 an MNIST story with an "overly expensive" network, T2 a snippet whose adapter is
cut off from the loss (``tests/training/test_loop.py`` shows that it is refused), T3 an introduction with counts.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sweep.adapters.fold import Folded
from sweep.adapters.inits import BaseWeight
from sweep.adapters.inits.from_weights import pissa
from sweep.models.mlp import MLP
from sweep.tasks.mnist.task import Mnist, mnist
from sweep.tasks.task import Batch, Domain
from sweep.tasks.toy_regression.oracle import best_mse
from sweep.tasks.toy_regression.task import toy_regression
from sweep.training.evaluate import evaluate
from tests.support.builders import (
    NOWHERE,
    InOrder,
    attach,
    bits,
    digits,
    equal,
    lora,
    mlp,
    optimizer,
    randn,
    run,
    squared_error,
    training,
    tutorial,
)


def trained_numbers(folded: Folded, inputs: int, outputs: int) -> int:
    """How many numbers really receive a gradient, by training a single step."""
    domain = InOrder([Batch(randn(2, inputs), randn(2, outputs))])
    return run(folded, squared_error(), domain, [optimizer()], training(steps=1)).trained.trainable[0]


@pytest.mark.parametrize(("bias", "count"), [("none", 296), ("all", 306)])
def test_t0_trains_306_numbers_and_296_only_with_the_bias_frozen(bias: str, count: int) -> None:
    folded = attach(mlp(64, 10), lora(rank=4, bias=bias))
    assert trained_numbers(folded, 64, 10) == count
    added = sum(layer.lora_A.numel() + layer.lora_B.numel() for layer in folded.layers.values())
    assert folded.base_params + added == 946
    assert 100 * count / 946 == pytest.approx({296: 31.29, 306: 32.35}[count], abs=0.005)


@pytest.mark.parametrize(("bias", "count"), [("none", 306), ("all", 316)])
def test_t0_with_dora_trains_ten_numbers_more_one_for_each_output(bias: str, count: int) -> None:
    folded = attach(mlp(64, 10), lora(rank=4, bias=bias, dora=True))
    assert trained_numbers(folded, 64, 10) == count


class LoRALayer(nn.Module):
    """The tutorial's own layer, its trainable bias included."""

    def __init__(self, in_features: int, out_features: int, rank: int):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.linear.weight.requires_grad = False
        self.lora_A = nn.Parameter(torch.randn(in_features, rank))
        self.lora_B = nn.Parameter(torch.randn(rank, out_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + x @ self.lora_A @ self.lora_B


@pytest.fixture
def t0() -> tuple[Batch, LoRALayer]:
    """The tutorial's data and layer, drawn in its order under seed 42."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        batch = Batch(torch.randn(1000, 64), torch.randn(1000, 10))
        return batch, LoRALayer(64, 10, 4)


def test_t0_starts_at_244_where_the_base_alone_has_1_37_and_ends_at_173(t0: tuple[Batch, LoRALayer]) -> None:
    batch, theirs = t0
    base = MLP([64, 10]).requires_grad_(False)
    base.linears[0].load_state_dict(theirs.linear.state_dict())
    assert F.mse_loss(base(batch.inputs), batch.targets).item() == pytest.approx(1.36706, abs=5e-6)
    folded = attach(base, lora(rank=4, alpha=4.0, init="both_random", bias="all"))
    layer = folded.layers["layers.0"]
    layer.lora_A.data[0], layer.lora_B.data[0] = theirs.lora_A.data.T, theirs.lora_B.data.T
    ours = run(
        folded, squared_error(), InOrder([batch]), [optimizer(name="adam", lr=0.01)], training(steps=10)
    ).losses()
    # a mean of 10,000 squares near 240 in float32, summed in another order: 1e-6 relative; four decimals are printed
    assert ours[0] == pytest.approx(243.7067, abs=3e-4)
    assert ours[-1] == pytest.approx(173.2909, abs=3e-4)
    update = torch.optim.Adam([p for p in theirs.parameters() if p.requires_grad], lr=0.01)
    for loss_here in ours:
        update.zero_grad()
        loss = F.mse_loss(theirs(batch.inputs), batch.targets)
        loss.backward()
        update.step()
        assert loss_here == pytest.approx(loss.item(), rel=2e-6)


def test_t0_rank_4_could_have_reached_1_13938(t0: tuple[Batch, LoRALayer]) -> None:
    batch, theirs = t0
    linear = theirs.linear
    assert best_mse(*batch, linear.weight.detach(), linear.bias.detach(), 4) == pytest.approx(1.13938, abs=5e-6)


def test_t0_is_the_task_with_data_tutorial(t0: tuple[Batch, LoRALayer]) -> None:
    batch, theirs = t0
    task = toy_regression(tutorial())
    assert torch.equal(task.target.train.inputs, batch.inputs)
    assert torch.equal(task.target.train.targets, batch.targets)
    assert equal(task.teacher.linears[0].state_dict(), theirs.linear.state_dict())
    [row] = task.closing(attach(task.base(), lora(rank=4)), [lora(rank=4)])
    assert row["eval/train_mse"] == pytest.approx(1.36706, abs=5e-6)
    assert row["eval/oracle_mse"] == pytest.approx(1.13938, abs=5e-6)


@pytest.mark.parametrize(
    ("outputs", "inputs", "rank", "count", "weight", "percent"),
    [
        (1000, 5000, 5, 30_000, 5_000_000, 0.6),  # T1
        (1000, 1000, 10, 20_000, 1_000_000, 2.0),  # T2
        (1024, 2048, 32, 98_304, 2_097_152, 4.6875),  # T3: 96 Ki of 2 Mi
    ],
)
def test_counts_of_single_layers(outputs: int, inputs: int, rank: int, count: int, weight: int, percent: float) -> None:
    base = mlp(inputs, outputs)
    assert base.linears[0].weight.numel() == weight
    assert trained_numbers(attach(base, lora(rank=rank)), inputs, outputs) == count
    assert 100 * count / weight == percent


def test_t1_the_expensive_network_has_2807010_numbers_and_lora_adds_6794() -> None:
    folded = attach(mlp(784, 1000, 2000, 10), lora(rank=1, alpha=1.0, init="normal"))
    assert folded.base_params == 2_807_010
    assert trained_numbers(folded, 784, 10) == 6_794
    assert folded.base_params + 6_794 == 2_813_804
    assert pytest.approx(0.24204, abs=5e-6) == 100 * 6_794 / 2_807_010
    assert pytest.approx(0.24145, abs=5e-6) == 100 * 6_794 / 2_813_804


def test_t1_a_rank_2_matrix_is_recovered_from_40_of_its_100_numbers() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weight = torch.randn(10, 2) @ torch.randn(2, 10)
        bias, x = torch.randn(10), torch.randn(10)
    assert weight[0, :3].tolist() == pytest.approx([-1.0797, 0.5545, 0.8058], abs=5e-5)
    base = BaseWeight(weight)
    assert base.svd[1][:2].tolist() == pytest.approx([11.3851, 4.8439], abs=5e-5)
    assert base.svd[1][2:].max() < 1e-5
    lora_A, lora_B = pissa.draw(base, 2, 1.0, torch.Generator())
    assert lora_A.numel() + lora_B.numel() == 40
    y = lora_B @ lora_A @ x + bias
    printed = [7.2684, 2.3162, 7.7151, -10.446, -8.1639e-3, -3.7270, -11.146, 2.0207, -9.6258, -4.1163]
    assert y.tolist() == pytest.approx(printed, abs=5e-4)
    torch.testing.assert_close(y, weight @ x + bias, atol=1e-5, rtol=0)


class LoRAParametrization(nn.Module):
    """The tutorial's own: it adds B·A to the weight itself."""

    def __init__(self, lora_A: Tensor, lora_B: Tensor):
        super().__init__()
        self.lora_A, self.lora_B = nn.Parameter(lora_A.clone()), nn.Parameter(lora_B.clone())

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.lora_B @ self.lora_A


def wrong_counts(model: Callable[[Tensor], Tensor], held_out: Batch) -> list[int]:
    with torch.no_grad():
        wrong = model(held_out.inputs).argmax(1) != held_out.targets
    return [int((wrong & (held_out.targets == digit)).sum()) for digit in range(10)]


@pytest.fixture(scope="module")
def t1() -> tuple[Mnist, MLP]:
    """The story's network, narrower, after one epoch of Adam over the 4,000 embedded digits in batches of 10."""
    task = mnist(digits(shift="digit", digit=9, hidden=(100, 200)), NOWHERE)
    model = task.new_model(torch.Generator().manual_seed(0))
    update = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = task.source.batches(torch.Generator().manual_seed(0), 10)
    for _ in range(400):
        batch = next(batches)
        update.zero_grad()
        F.cross_entropy(model(batch.inputs), batch.targets).backward()
        update.step()
    return task, model.requires_grad_(False)


def first_batches(domain: Domain, count: int) -> InOrder:
    drawn = domain.batches(torch.Generator().manual_seed(1), 10)
    return InOrder([next(drawn) for _ in range(count)])


def test_t1_training_only_on_nines_improves_nines_and_harms_the_rest(t1: tuple[Mnist, MLP]) -> None:
    """The whole story. The tutorial's own counts are those of one machine: 6,000 updates amplify every rounding."""
    task, model = t1
    before, weights = wrong_counts(model, task.source.held_out), bits(model)
    assert sum(before) < 150  # of 1,000
    folded = attach(model, lora(rank=1, alpha=1.0, init="normal"))
    domain = first_batches(task.target, 100)
    run(folded, task, domain, [optimizer(name="adam", lr=1e-3)], training(steps=100, batch_size=10))

    [row] = evaluate(folded, task, task.source)
    after = [int(row[f"eval/wrong_{digit}"]) for digit in range(10)]
    assert after[9] < before[9]
    assert sum(after) > 1.5 * sum(before)
    assert row["eval/accuracy"] == pytest.approx(1 - sum(after) / 1000)
    [on_nines] = evaluate(folded, task, task.target)
    assert on_nines["eval/accuracy"] == pytest.approx(1 - after[9] / 100)

    assert equal(bits(model), weights)
    folded.enable(False)
    [off] = evaluate(folded, task, task.source)
    assert [int(off[f"eval/wrong_{digit}"]) for digit in range(10)] == before


def test_t1_our_layer_does_what_the_tutorials_parametrization_does(t1: tuple[Mnist, MLP]) -> None:
    task, model = t1
    folded = attach(model, lora(rank=1, alpha=1.0, init="normal"))
    domain = first_batches(task.target, 100)
    theirs = MLP(model.widths)
    theirs.load_state_dict(model.state_dict())
    theirs.requires_grad_(False)
    added = []
    for name, layer in folded.layers.items():
        added.append(LoRAParametrization(layer.lora_A[0].detach(), layer.lora_B[0].detach()))
        parametrize.register_parametrization(theirs.get_submodule(name), "weight", added[-1])
    ours = run(folded, task, domain, [optimizer(name="adam", lr=1e-3)], training(steps=100, batch_size=10)).losses()
    update = torch.optim.Adam([parameter for part in added for parameter in part.parameters()], lr=1e-3)
    losses = []
    for batch in domain.ordered:
        update.zero_grad()
        loss = F.cross_entropy(theirs(batch.inputs), batch.targets)
        loss.backward()
        update.step()
        losses.append(loss.item())
    # W + BA in one product against two: float32 rounding, over a hundred updates of Adam
    assert ours == pytest.approx(losses, rel=1e-3, abs=1e-5)
    differing = sum(
        abs(a - b)
        for a, b in zip(
            wrong_counts(lambda x: folded.outputs(x, sees=[0]), task.source.held_out),
            wrong_counts(theirs, task.source.held_out),
            strict=True,
        )
    )
    assert differing <= 2  # of 1,000 digits, those that stand on the edge
