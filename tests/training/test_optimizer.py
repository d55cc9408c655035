"""Our optimizers beside torch.optim, bit for bit, for one trial and for each trial of a pack."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sweep.training.optimizer import TrialRows, build, clip_norms, lr_ratios
from tests.support.builders import optimizer, randn

SHAPES = [(4, 12), (20, 4), (20,)]
STEPS = 12
CASES = [
    ({"name": "adamw"}, torch.optim.AdamW),
    ({"name": "adamw", "weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-6}, torch.optim.AdamW),
    ({"name": "adam"}, torch.optim.Adam),
    ({"name": "adam", "weight_decay": 0.1}, torch.optim.Adam),
    ({"name": "sgd"}, torch.optim.SGD),
    ({"name": "sgd", "momentum": 0.9}, torch.optim.SGD),
    ({"name": "sgd", "weight_decay": 0.1}, torch.optim.SGD),
    ({"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}, torch.optim.SGD),
]


def gradients(trial: int, step: int) -> list[Tensor]:
    return [randn(*shape, seed=1000 * trial + 10 * step + part) for part, shape in enumerate(SHAPES)]


def start(trial: int) -> list[Tensor]:
    return [randn(*shape, seed=77 + trial + 100 * part) for part, shape in enumerate(SHAPES)]


def theirs(kind: Any, trial: int, rates: list[float], clip: float | None = None, **settings: Any) -> list[Tensor]:
    parameters = [nn.Parameter(value.clone()) for value in start(trial)]
    update = kind(parameters, lr=rates[0], **{"weight_decay": 0.0} | settings)
    for step, rate in enumerate(rates):
        update.param_groups[0]["lr"] = rate
        for parameter, gradient in zip(parameters, gradients(trial, step), strict=True):
            parameter.grad = gradient.clone()
        if clip:
            nn.utils.clip_grad_norm_(parameters, clip)
        update.step()
    return [parameter.data for parameter in parameters]


def ours(settings: list[Any], rates: list[list[float]]) -> list[list[Tensor]]:
    trials = range(len(settings))
    stacked = [torch.stack(parts) for parts in zip(*(start(trial) for trial in trials), strict=True)]
    parameters = {str(part): nn.Parameter(value) for part, value in enumerate(stacked)}
    rows = TrialRows(parameters, len(settings))
    update, clip = build(rows, settings), clip_norms(settings, torch.device("cpu"))
    for step in range(len(rates[0])):
        drawn = zip(*(gradients(trial, step) for trial in trials), strict=True)
        for parameter, parts in zip(parameters.values(), drawn, strict=True):
            parameter.grad = torch.stack(parts)
        assert all(rows.collect().values())
        if clip is not None:
            rows.clip(clip)
        update.step(torch.tensor([own[step] for own in rates], dtype=torch.float64)[:, None])
    return [[parameter.data[trial] for parameter in parameters.values()] for trial in trials]


def keywords(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "name"}


@pytest.mark.parametrize(("settings", "kind"), CASES)
def test_optimizer_of_one_trial_is_torch_optim_bit_for_bit(settings: dict[str, Any], kind: Any) -> None:
    rates = [3e-3 / (1 + step) for step in range(STEPS)]
    [mine] = ours([optimizer(**settings)], [rates])
    for own, their in zip(mine, theirs(kind, 0, rates, **keywords(settings)), strict=True):
        assert torch.equal(own, their)


@pytest.mark.parametrize(("settings", "kind"), CASES)
def test_optimizer_of_a_pack_is_torch_optim_for_each_rate_and_decay(settings: dict[str, Any], kind: Any) -> None:
    levels = [(1e-3, 0.0), (3e-2, 0.1), (1e-4, 0.3)]
    each = [settings | {"lr": lr, "weight_decay": decay} for lr, decay in levels]
    rates = [[lr * (1 + step % 3) for step in range(STEPS)] for lr, _ in levels]
    pack = ours([optimizer(**own) for own in each], rates)
    for trial, own_settings in enumerate(each):
        expected = theirs(kind, trial, rates[trial], **{k: v for k, v in keywords(own_settings).items() if k != "lr"})
        for own, their in zip(pack[trial], expected, strict=True):
            assert torch.equal(own, their)


@pytest.mark.parametrize("settings", [{}, {"name": "adam", "weight_decay": 0.1}, {"name": "sgd", "momentum": 0.9}])
def test_optimizer_of_lora_plus_is_torch_optim_with_two_groups_bit_for_bit(settings: dict[str, Any]) -> None:
    """Three trials at ratios 1, 4 and 16: A (4, 12), B (20, 4) and a bias (20,), the last two at the higher rate."""
    each = [optimizer(**{"weight_decay": 0.1, **settings}, lr_ratio=ratio) for ratio in (1.0, 4.0, 16.0)]
    names = ["x.lora_A", "x.lora_B", "x.bias"]
    values = [torch.stack(parts) for parts in zip(*(start(trial) for trial in range(3)), strict=True)]
    rows = TrialRows({name: nn.Parameter(value) for name, value in zip(names, values, strict=True)}, 3)
    update, ratios = build(rows, each), lr_ratios(rows, each)
    theirs = []
    for trial, setting in enumerate(each):
        a, *others = parameters = [nn.Parameter(value.clone()) for value in start(trial)]
        groups = [{"params": [a], "lr": 1e-2}, {"params": others, "lr": 1e-2 * setting.lr_ratio}]
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}[setting.name]
        momentum = {"momentum": 0.9} if setting.name == "sgd" else {}
        theirs.append((parameters, kind(groups, weight_decay=0.1, **momentum)))
    for step in range(STEPS):
        for trial, (parameters, reference) in enumerate(theirs):
            for parameter, gradient in zip(parameters, gradients(trial, step), strict=True):
                parameter.grad = gradient.clone()
            reference.step()
        drawn = zip(*(gradients(trial, step) for trial in range(3)), strict=True)
        for parameter, parts in zip(rows.parameters.values(), drawn, strict=True):
            parameter.grad = torch.stack(parts)
        rows.collect()
        update.step(torch.full((3, 1), 1e-2, dtype=torch.float64) * ratios)
    for trial, (parameters, _) in enumerate(theirs):
        for own, their in zip(rows.parameters.values(), parameters, strict=True):
            assert torch.equal(own[trial], their.data)


def test_optimizer_without_lora_plus_has_one_rate_for_each_trial() -> None:
    rows = TrialRows({"x.lora_A": nn.Parameter(randn(2, 3, 2)), "x.lora_B": nn.Parameter(randn(2, 4, 3))}, 2)
    assert lr_ratios(rows, [optimizer(), optimizer()]).tolist() == [[1.0], [1.0]]
    assert lr_ratios(rows, [optimizer(), optimizer(lr_ratio=8)]).tolist() == [[1.0, 1.0], [1.0, 8.0]]


def test_optimizer_clips_each_trial_by_itself_as_torch_does() -> None:
    # SGD at rate 1: the change is the clipped gradient itself. The norm is a sum in another order: 1e-6 relative.
    levels = [0.5, None, 3.0, 1e3]
    pack = ours([optimizer(name="sgd", clip_norm=level) for level in levels], [[1.0] * 3] * 4)
    for trial, level in enumerate(levels):
        for own, their in zip(pack[trial], theirs(torch.optim.SGD, trial, [1.0] * 3, level), strict=True):
            torch.testing.assert_close(own, their, atol=1e-6, rtol=1e-6)
        untouched = theirs(torch.optim.SGD, trial, [1.0] * 3)
        is_clipped = not torch.allclose(pack[trial][0], untouched[0])
        assert is_clipped == (level in (0.5, 3.0))


def test_optimizer_clips_nothing_unless_asked() -> None:
    assert clip_norms([optimizer(), optimizer()], torch.device("cpu")) is None


def test_optimizer_reports_a_tensor_without_a_gradient_and_gives_it_zero() -> None:
    parameters = {name: nn.Parameter(randn(2, 3, seed=seed)) for seed, name in enumerate(("with", "without"))}
    rows = TrialRows(parameters, 2)
    parameters["with"].grad = torch.ones(2, 3)
    assert rows.collect() == {"with": True, "without": False}
    assert rows.gradients.tolist() == [[1, 1, 1, 0, 0, 0]] * 2
    assert rows.collect() == {"with": False, "without": False}
    assert not rows.gradients.any()


def test_optimizer_makes_parameters_views_of_their_trials_row() -> None:
    parameters = {"a": nn.Parameter(randn(2, 3, 2)), "b": nn.Parameter(randn(2, 5))}
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    rows = TrialRows(parameters, 2)
    assert all(torch.equal(parameters[name], value) for name, value in before.items())
    rows.values[1] += 1
    assert torch.equal(parameters["a"][0], before["a"][0])
    assert torch.equal(parameters["a"][1], before["a"][1] + 1)


def test_sgd_without_momentum_narrows_to_the_rows_that_are_left() -> None:
    settings = [optimizer(name="sgd", weight_decay=decay) for decay in (0.0, 0.1, 0.2)]
    three = TrialRows({"a": nn.Parameter(randn(3, 4))}, 3)
    two = TrialRows({"a": nn.Parameter(randn(2, 4, seed=1))}, 2)
    before = two.values.clone()
    narrowed = build(three, settings)
    narrowed.narrow(two, [0, 2])
    narrowed.step(torch.tensor([[1.0], [1.0]], dtype=torch.float64))
    torch.testing.assert_close(two.values, before * torch.tensor([[1.0], [0.8]]))
