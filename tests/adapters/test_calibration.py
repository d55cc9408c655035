"""What is measured on data, against the same figures written out, and the starts that follow from it, against PEFT."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from sweep.adapters.calibration import Calibration
from sweep.adapters.fold import linear_layers
from sweep.adapters.inits import BaseWeight
from sweep.adapters.inits.check import check_ranks
from sweep.adapters.inits.from_data import LORA_GA_GAMMA
from sweep.errors import ConfigError
from sweep.packs.base import CALIBRATION_POSITIONS, base_weights
from sweep.registry import INITS
from sweep.tasks.task import Batch
from sweep.tasks.toy_regression.task import toy_regression
from tests.support.builders import attach, bits, equal, llama, lora, mlp, objective, randn, regression, tutorial

# inputs with a spectrum: directions are only defined where variances differ
SPREAD = torch.linspace(3.0, 0.2, 12)


def seen(batches: int = 4, rows: int = 32) -> list[Batch]:
    """Inputs with a mean and a falling spectrum, and targets."""
    inputs = randn(batches, rows, 12, seed=1) * SPREAD + 2.0
    return [Batch(x, y) for x, y in zip(inputs, randn(batches, rows, 8, seed=2), strict=True)]


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean(1)


SQUARED = objective(squared)


def calibrated(model: Any, batches: list[Batch]) -> dict[str, BaseWeight]:
    layers = linear_layers(model)
    calibration = Calibration(model, layers, SQUARED, lambda: batches)
    return {name: BaseWeight(layer.weight, name, calibration) for name, layer in layers.items()}


def layer_inputs(model: Any, batches: list[Batch]) -> dict[str, Tensor]:
    """All inputs of both layers of a perceptron, in float64."""
    x = torch.cat([batch.inputs for batch in batches]).double()
    first, _ = copy.deepcopy(model).double().linears
    return {"layers.0": x, "layers.1": first(x).relu()}


def start(init: str, base: BaseWeight, rank: int = 3) -> tuple[Tensor, Tensor]:
    lora_A, lora_B = INITS.load(init).draw(base, rank, 2.0, torch.Generator())
    return lora_A, lora_B


def test_calibration_covariances_are_those_of_each_layers_inputs() -> None:
    model = mlp(12, 20, 8)
    calibration = Calibration(model, linear_layers(model), SQUARED, seen)
    for name, inputs in layer_inputs(model, seen()).items():
        expected = torch.cov(inputs.T, correction=0)
        # the inputs of the second layer are float32; the sums are not
        torch.testing.assert_close(calibration.covariances[name], expected, atol=1e-5, rtol=1e-5)


def test_calibration_gradients_are_those_of_the_mean_loss() -> None:
    model, batches = mlp(12, 20, 8), seen()
    calibration = Calibration(model, linear_layers(model), SQUARED, lambda: batches)
    twin = copy.deepcopy(model).requires_grad_(True)
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    squared(twin(inputs), targets).mean().backward()
    for name, layer in linear_layers(twin).items():
        torch.testing.assert_close(calibration.gradients[name], layer.weight.grad, atol=1e-6, rtol=1e-5)


def test_calibration_leaves_no_trace_on_the_base() -> None:
    for model, inputs in ((mlp(12, 20, 8), randn(4, 12)), (llama(), torch.arange(10)[None])):
        before = bits(model)
        weights = attach(model, lora(init="lora_ga", rank=2), lora(init="eva", rank=2))
        assert equal(bits(model), before)
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
        assert not any(module._forward_pre_hooks for module in linear_layers(model).values())
        assert weights.model(inputs.repeat(2, 1)).isfinite().all()


def test_base_weights_are_calibrated_on_the_same_rows_every_time() -> None:
    task = toy_regression(regression())
    first, second = (base_weights(task.base(), task)["layers.0"] for _ in range(2))
    assert torch.equal(first.input_directions, second.input_directions)
    assert torch.equal(first.gradient_svd[0], second.gradient_svd[0])
    tutorials = toy_regression(tutorial())
    covariance = base_weights(tutorials.base(), tutorials)["layers.0"]._calibration.covariances["layers.0"]  # type: ignore[union-attr]
    # 4,096 rows in shuffled epochs of 1,000: within sampling, the covariance of the training rows
    assert CALIBRATION_POSITIONS == 4096
    expected = torch.cov(tutorials.target.train.inputs.double().T, correction=0)
    assert (covariance - expected).abs().max() < 0.05


@pytest.mark.parametrize("name", ["layers.0", "layers.1"])
def test_eva_explains_as_much_variance_as_any_directions_can(name: str) -> None:
    model = mlp(12, 20, 8)
    inputs = layer_inputs(model, seen())[name]
    centred = inputs - inputs.mean(0)
    for rank in (1, 3, 5):
        lora_A, lora_B = start("eva", calibrated(model, seen())[name], rank)
        assert not lora_B.any()
        torch.testing.assert_close(lora_A @ lora_A.T, torch.eye(rank), atol=1e-6, rtol=0)
        best = torch.linalg.svdvals(centred)[:rank].square().sum()
        assert (centred @ lora_A.T.double()).square().sum() == pytest.approx(best.item(), rel=1e-5)


def test_eva_takes_the_directions_of_peft() -> None:
    """PEFT fits by increments and stops when its directions settle; on one batch, seen twice, both are exact."""
    from peft import LoraConfig, get_peft_model, initialize_lora_eva_weights
    from peft.tuners.lora import EvaConfig

    model, [batch] = mlp(12, 20, 8), seen(batches=1, rows=256)
    config = LoraConfig(
        r=3,
        lora_alpha=6,
        target_modules=["layers.0", "layers.1"],
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=1.0),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = get_peft_model(copy.deepcopy(model), config)
        initialize_lora_eva_weights(
            theirs,
            [batch.inputs],
            forward_fn=lambda peft, inputs: peft(inputs),
            prepare_model_inputs_fn=None,
            prepare_layer_inputs_fn=None,
            show_progress_bar=False,
        )
    for name, base in calibrated(model, [batch]).items():
        ours, _ = start("eva", base)
        found = theirs.base_model.model.get_submodule(name)
        assert found.r["default"] == 3
        assert not found.lora_B["default"].weight.any()
        # the same directions up to sign; PEFT's decomposition is randomised and in float32
        cosines = (ours * found.lora_A["default"].weight).sum(1).abs()
        torch.testing.assert_close(cosines, torch.ones(3), atol=1e-4, rtol=0)


def gradient_svd(model: Any, name: str) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vt = torch.linalg.svd(
        Calibration(model, linear_layers(model), SQUARED, seen).gradients[name].double(), full_matrices=False
    )
    return u.float(), s.float(), vt.float()


@pytest.mark.parametrize("name", ["layers.0", "layers.1"])
def test_lora_ga_is_the_formula_of_its_authors(name: str) -> None:
    model = mlp(12, 20, 8)
    base = calibrated(model, seen())[name]
    lora_A, lora_B = start("lora_ga", base)
    u, _, vt = gradient_svd(model, name)
    size = base.out_features**0.25 / LORA_GA_GAMMA**0.5
    signs = (vt[:6] * base.gradient_svd[1][:6]).sum(1).sign()
    torch.testing.assert_close(lora_A, size * vt[:3] * signs[:3, None], atol=1e-4, rtol=0)
    torch.testing.assert_close(lora_B, size * u[:, 3:6] * signs[3:], atol=1e-4, rtol=0)


def test_lora_ga_differs_from_peft_by_the_singular_values_in_b_and_the_size_of_a() -> None:
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraGAConfig, preprocess_loraga

    model, batches = mlp(12, 20, 8), seen()
    config = LoraConfig(
        r=3,
        lora_alpha=6,
        target_modules=["layers.0", "layers.1"],
        init_lora_weights="lora_ga",
        lora_ga_config=LoraGAConfig(),
    )
    twin = copy.deepcopy(model)

    def step() -> None:
        for batch in batches:
            squared(twin(batch.inputs), batch.targets).mean().backward()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        preprocess_loraga(twin, config, step)
        theirs = get_peft_model(twin, config)
    for name, base in calibrated(model, batches).items():
        lora_A, lora_B = start("lora_ga", base)
        found = theirs.base_model.model.get_submodule(name)
        _, s, _ = gradient_svd(model, name)
        size = base.out_features**0.25 / LORA_GA_GAMMA**0.5
        cosines = (lora_A / size * found.lora_A["default"].weight).sum(1).abs()
        torch.testing.assert_close(cosines, torch.ones(3), atol=1e-3, rtol=0)
        products = (lora_B * found.lora_B["default"].weight).sum(0).abs()
        torch.testing.assert_close(products, size**2 * s[3:6], atol=0, rtol=1e-2)


def test_lora_ga_reuses_vectors_in_a_narrow_layer_with_a_note() -> None:
    base = calibrated(mlp(12, 20, 8), seen())["layers.1"]
    lora_A, lora_B = start("lora_ga", base, 5)
    size = 8**0.25 / 4
    torch.testing.assert_close(lora_B, size * base.gradient_svd[0][:, 3:8], atol=0, rtol=1e-6)
    torch.testing.assert_close(lora_A @ lora_A.T, size**2 * torch.eye(5), atol=1e-6, rtol=0)
    assert check_ranks(lora(init="lora_ga", rank=5), {"wide": (20, 12), "narrow": (8, 20)}) == [
        "init lora_ga: narrow has fewer than 10 singular vectors; B takes the last 5"
    ]


def test_eva_needs_as_many_inputs_as_its_rank() -> None:
    assert check_ranks(lora(init="eva", rank=9), {"wide": (20, 12), "flat": (4, 12)}) == [
        "rank 9 is above the full rank 4 of flat"
    ]
    with pytest.raises(ConfigError, match=r"adapter\.rank = 9: init eva takes 9 singular vectors, and tall has only 4"):
        check_ranks(lora(init="eva", rank=9), {"wide": (20, 12), "tall": (12, 4)})
