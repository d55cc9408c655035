"""Folding: what a pack shares, what each trial owns, and what the adapters leave alone."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sweep.adapters.fold import export, fold_full, fold_lora, fold_none
from sweep.adapters.rank import bucket, scale_of
from sweep.errors import ConfigError
from sweep.models.model import Model
from sweep.registry import INITS
from tests.support.builders import (
    InOrder,
    attach,
    bits,
    equal,
    llama,
    lora,
    mlp,
    optimizer,
    pairs,
    randn,
    run,
    squared_error,
    training,
)

START_IS_BASE = ["kaiming", "gaussian", "normal", "init_b", "mica", "eva"]
START_IS_NEAR = ["orthogonal", "pissa", "milora", "olora", "lora_ga"]
TOKENS = torch.randint(11, (5, 10), generator=torch.Generator().manual_seed(0))


def models() -> list[tuple[Any, Tensor]]:
    return [(mlp(12, 20, 8), randn(6, 12)), (llama(), TOKENS)]


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
@pytest.mark.parametrize("init", START_IS_BASE)
def test_fold_with_one_zero_factor_starts_at_the_base_bit_for_bit(init: str, bias: str) -> None:
    for model, x in models():
        assert torch.equal(attach(model, lora(init=init, bias=bias)).outputs(x, sees=[0]), model(x))


@pytest.mark.parametrize("init", START_IS_NEAR)
def test_fold_starts_at_the_base_within_rounding(init: str) -> None:
    for model, x in models():
        base = model(x)
        start = attach(model, lora(init=init)).outputs(x, sees=[0])
        # the logits of the decoder are near 10; both products s·BA x cancel to a few units in the last place
        assert (start - base).abs().max() < 1e-6 * max(4.0, base.abs().max().item() * 4)


def test_fold_of_both_random_does_not_start_at_the_base() -> None:
    model, x = models()[0]
    assert (attach(model, lora(init="both_random")).outputs(x, sees=[0]) - model(x)).abs().max() > 1


@pytest.mark.parametrize("init", INITS.names)
def test_fold_leaves_every_bit_of_the_shared_base_while_training(init: str) -> None:
    model = mlp(12, 20, 8)
    before, x = bits(model), randn(6, 12)
    outputs = model(x)
    folded = attach(model, lora(init=init), lora(init="pissa", rank=3))
    run(folded, squared_error(), InOrder(pairs(12, 8, 4, 3)), [optimizer(lr=1e-2)] * 2, training(steps=5))
    changed = folded.outputs(x, sees=[0, 0]).view(2, 6, 8)
    assert equal(bits(model), before)
    assert (changed - outputs).abs().amax(dim=(1, 2)).min() > 1e-4
    folded.enable(False)
    assert torch.equal(folded.outputs(x, sees=[0, 0]).view(2, 6, 8), outputs.expand(2, 6, 8))
    folded.enable(True)
    assert torch.equal(folded.outputs(x, sees=[0, 0]).view(2, 6, 8), changed)


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
@pytest.mark.parametrize("init", INITS.names)
def test_merged_computes_what_the_trial_does_and_unmerged_is_the_base(init: str, bias: str) -> None:
    model, x = mlp(12, 20, 8), randn(6, 12)
    adapters = [
        lora(init=init, bias=bias, targets=["layers.0"]),
        lora(init=init, bias=bias, rank=3 + INITS.load(init).even_rank),
    ]
    folded = attach(model, *adapters)
    run(folded, squared_error(), InOrder(pairs(12, 8, 4, 3)), [optimizer(lr=1e-2)] * 2, training(steps=10))
    together = folded.outputs(x, sees=[0, 0]).view(2, 6, 8)
    for trial in range(2):
        merged = folded.merged(trial)
        assert [type(module) for module in merged.layers] == [nn.Linear, nn.Linear]
        scale = max(1.0, together[trial].abs().max().item())
        # both_random makes activations of order 1000, on which rounding is relative
        torch.testing.assert_close(merged(x), together[trial], atol=1e-6 * scale, rtol=1e-6)
        again = folded.unmerged(merged, trial)
        assert not equal(bits(merged), bits(model))
        for name, tensor in model.state_dict().items():
            # adding and subtracting an update of this size rounds twice
            largest = max(1.0, merged.state_dict()[name].abs().max().item())
            torch.testing.assert_close(again.state_dict()[name], tensor, atol=1e-6 * largest, rtol=0.0)


def test_enable_off_is_the_original_model_under_pissa_unlike_in_peft() -> None:
    from peft import LoraConfig, get_peft_model

    model, x = mlp(12, 20, 8), randn(6, 12)
    original = model(x)
    folded = attach(model, lora(init="pissa"))
    folded.enable(False)
    assert torch.equal(folded.outputs(x, sees=[0]), original)
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights="pissa", target_modules=["layers.0", "layers.1"])
    theirs = get_peft_model(copy.deepcopy(model), config)
    with theirs.disable_adapter():
        assert (theirs(x) - original).abs().max() > 0.1


@pytest.mark.parametrize(("rank", "padded"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (64, 64)])
def test_bucket_is_the_next_power_of_two(rank: int, padded: int) -> None:
    assert bucket(rank) == padded


def test_fold_padding_and_untargeted_layers_stay_zero_under_training() -> None:
    adapters = [lora(rank=4), lora(rank=3, targets=["layers.1"]), lora(rank=3, init="pissa", targets=["layers.0"])]
    for name, momentum in (("adamw", 0.0), ("sgd", 0.9)):
        folded = attach(mlp(12, 20, 8), *adapters)
        setting = optimizer(name=name, lr=1e-2, weight_decay=0.1, momentum=momentum, clip_norm=1.0)
        run(folded, squared_error(), InOrder(pairs(12, 8, 4, 3)), [setting] * 3, training(steps=10))
        first, second = folded.layers["layers.0"], folded.layers["layers.1"]
        assert not first.lora_A[1].any()
        assert not first.lora_B[1].any()
        assert not second.lora_A[2].any()
        assert not second.lora_A[1, 3].any()
        assert not second.lora_B[1, :, 3].any()
        assert not first.lora_A[2, 3].any()
        assert second.lora_B[1, :, :3].all()


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_mica_trains_a_alone_and_nothing_moves_b(name: str) -> None:
    """Beside a trial that trains both, and under weight decay; alone there is no B to train at all."""
    adapters = [lora(init="mica"), lora(), lora(init="mica", rank=3, targets=["layers.1"])]
    folded = attach(mlp(12, 20, 8), *adapters)
    before = [layer.output_factors().detach().clone() for layer in folded.layers.values()]
    setting = optimizer(name=name, lr=1e-2, weight_decay=0.1, clip_norm=1.0, lr_ratio=4.0)
    how = run(folded, squared_error(), InOrder(pairs(12, 8, 4, 3)), [setting] * 3, training(steps=10)).trained
    for layer, start in zip(folded.layers.values(), before, strict=True):
        now = layer.output_factors()
        assert torch.equal(now[0], start[0])
        assert torch.equal(now[2], start[2])
        assert not torch.equal(now[1], start[1])
        assert layer.lora_A[0].any()
        assert not layer.lora_B[0].any()
    assert how.trainable == [4 * (12 + 20), 4 * (12 + 20) + 4 * (20 + 8), 3 * 20]
    assert [folded.added_params(trial) for trial in range(3)] == [4 * (12 + 20) + 4 * (20 + 8)] * 2 + [3 * (20 + 8)]
    own = export(folded, 2)
    assert {name: tuple(tensor.shape) for name, tensor in own.items()} == {
        "layers.1.lora_A": (3, 20),
        "layers.1.lora_B": (8, 3),
    }
    assert torch.equal(own["layers.1.lora_B"], before[1][2, :, :3])
    alone = attach(mlp(12, 20, 8), lora(init="mica"))
    assert set(alone.parameters) == {"layers.0.lora_A", "layers.1.lora_A"}


def test_export_has_the_trials_own_rank_and_layers_alone() -> None:
    folded = attach(mlp(12, 20, 8), lora(rank=4, bias="all"), lora(rank=3, targets=["layers.1"], bias="lora_only"))
    shapes = [{name: tuple(tensor.shape) for name, tensor in export(folded, trial).items()} for trial in range(2)]
    assert shapes[0] == {
        "layers.0.lora_A": (4, 12),
        "layers.0.lora_B": (20, 4),
        "layers.0.bias": (20,),
        "layers.1.lora_A": (4, 20),
        "layers.1.lora_B": (8, 4),
        "layers.1.bias": (8,),
    }
    assert shapes[1] == {"layers.1.lora_A": (3, 20), "layers.1.lora_B": (8, 3), "layers.1.bias": (8,)}


def test_trainable_counts_each_trial_by_itself() -> None:
    adapters = [
        lora(rank=4),
        lora(rank=3, targets=["layers.1"]),
        lora(rank=1, targets=["layers.0"], bias="lora_only"),
        lora(rank=1, targets=["layers.0"], bias="all"),
    ]
    folded = attach(mlp(12, 20, 8), *adapters)
    how = run(folded, squared_error(), InOrder(pairs(12, 8, 4, 3)), [optimizer()] * 4, training(steps=1)).trained
    assert how.trainable == [4 * (12 + 20) + 4 * (20 + 8), 3 * (20 + 8), 32 + 20, 32 + 20 + 8]


def test_fold_full_trains_a_copy_of_everything() -> None:
    model = mlp(12, 20, 8)
    before = bits(model)
    folded = fold_full(model)
    how = run(folded, squared_error(), InOrder(pairs(12, 8, 4, 3)), [optimizer()], training(steps=2)).trained
    assert how.trainable == [12 * 20 + 20 + 20 * 8 + 8]
    assert equal(bits(model), before)
    assert not equal(bits(folded.model), before)
    assert equal(bits(folded.merged(0)), bits(folded.model))


def test_outputs_of_trials_that_see_different_rows_are_their_own() -> None:
    folded = attach(mlp(12, 20, 8), *(lora(init="normal", targets=["layers.1"]),) * 3, seeds=[0, 1, 2])
    for layer in folded.layers.values():
        layer.lora_B.data.copy_(randn(*layer.lora_B.shape))
    inputs = randn(2 * 6, 12)
    outputs = folded.outputs(inputs, sees=[1, 0, 1]).view(3, 6, 8)
    for trial, rows in enumerate((inputs[6:], inputs[:6], inputs[6:])):
        torch.testing.assert_close(folded.merged(trial)(rows), outputs[trial], atol=1e-5, rtol=1e-5)


def test_fold_none_trains_nothing_and_computes_the_base() -> None:
    model, x = mlp(12, 20, 8), randn(6, 12)
    folded = fold_none(model, 2)
    assert folded.parameters == {}
    assert torch.equal(folded.outputs(x, sees=[0, 0]), model(x).repeat(2, 1))


def test_fold_draws_a_layer_alike_whatever_else_is_targeted() -> None:
    one = attach(mlp(12, 20, 8), lora(targets=["layers.1"]))
    both = attach(mlp(12, 20, 8), lora())
    assert torch.equal(one.layers["layers.1"].lora_A, both.layers["layers.1"].lora_A)


def test_fold_draws_two_layers_of_one_shape_differently() -> None:
    layers = attach(mlp(12, 12, 12), lora()).layers
    assert not torch.equal(layers["layers.0"].lora_A, layers["layers.1"].lora_A)


def test_fold_draws_another_start_from_another_seed() -> None:
    folded = attach(mlp(12, 20, 8), lora(), lora(), lora(), seeds=[0, 1, 0])
    starts = folded.layers["layers.0"].lora_A
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[1])


class WithLayer(Model):
    stages = ("first",)

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.first, self.extra = nn.Linear(4, 4), layer


@pytest.mark.parametrize(
    ("layer", "what"),
    [(nn.BatchNorm1d(4), "extra is a batch normalisation"), (nn.Dropout(0.1), "extra drops out inside the base")],
)
def test_fold_refuses_a_model_that_mixes_rows_or_has_dropout(layer: nn.Module, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        fold_lora(WithLayer(layer), [lora()], [["first"]], [0], 4)
    fold_lora(WithLayer(nn.Dropout(0.0)), [lora()], [["first"]], [0], 4)


def test_scale_of_rslora_is_that_of_lora_with_alpha_times_root_rank() -> None:
    rs = lora(rank=9, alpha=2.0, scaling="alpha/sqrt_rank")
    plain = lora(rank=9, alpha=6.0)
    assert scale_of(rs, "") == pytest.approx(scale_of(plain, ""), rel=1e-15)
    traces = []
    for adapter in (rs, plain):
        folded = attach(mlp(12, 20, 10), adapter)
        traces.append(run(folded, squared_error(), InOrder(pairs(12, 10, 4, 3)), [optimizer(lr=1e-2)], training()))
    assert traces[0].losses() == traces[1].losses()


def test_scale_of_scaling_alpha_does_not_depend_on_the_rank() -> None:
    assert [scale_of(lora(rank=rank, alpha=3.0, scaling="alpha"), "") for rank in (1, 4)] == [3.0, 3.0]
    assert [scale_of(lora(rank=rank, alpha=3.0), "") for rank in (1, 4)] == [3.0, 0.75]
    assert [scale_of(lora(rank=rank, alpha=3.0, scaling="alpha/sqrt_rank"), "") for rank in (1, 4)] == [3.0, 1.5]
