"""Plug-ins: what they bring works as ours does, and whatever is wrong with one is named and stays its own."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import analysis
from sweep.errors import ConfigError
from sweep.guard import blaming, every_state, guarded
from sweep.launch.launch import run
from sweep.record import Record
from sweep.registry import Plugin, PluginError
from sweep.store.store import Store
from tests.support.commands import resolved, untimed
from tests.support.plugins import (
    HERE,
    OURS,
    install_init,
    on_path,
    ours_alone,
)

ZEROS = "torch.zeros(base.out_features, rank)"


def body(*lines: str, init: str = "@Init", before: str = "") -> str:
    """The source of an init called ``mine`` with these lines."""
    return f"{before}\n{init}\ndef mine(base, rank, scaling, rng):\n" + "".join(f"    {line}\n" for line in lines)


def random_start(*lines: str, **around: str) -> str:
    return body(*lines, f"return torch.randn(rank, base.in_features, generator=rng), {ZEROS}", **around)


GOOD = random_start()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return ours_alone(tmp_path_factory.mktemp("alone"))


@pytest.fixture
def beside_ours(tmp_path: Path, alone: dict[str, dict[str, Any]]) -> Callable[..., Record]:
    """Trains a trial of a plug-in in one pack with ours, which must be what they are without it; returns its record."""

    def train(*overrides: str) -> Record:
        trials = resolved(*OURS, " ".join(("adapter.init=mine", *overrides)), cache=tmp_path)
        *ours, own = run(trials, Store(tmp_path / "s", None), HERE)
        assert {one.trial_id: untimed(one) for one in ours} == alone
        return own

    return train


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (body("raise ZeroDivisionError('boom')"), "failed: ZeroDivisionError: boom"),
        (body("raise SystemExit(3)"), "failed: SystemExit: 3"),
        (random_start("torch.set_grad_enabled(False)"), "uses or changes torch's gradient mode"),
        (
            body(f"return torch.zeros(rank + 1, base.in_features), {ZEROS}"),
            "lora_A has shape (9, 64), and must have (8, 64)",
        ),
        (body(f"return torch.zeros(rank, base.in_features).double(), {ZEROS}"), "lora_A is torch.float64 on cpu"),
        (body(f"return torch.full((rank, base.in_features), torch.nan), {ZEROS}"), "lora_A holds NaN or infinity"),
        (body("return torch.zeros(rank, base.in_features)"), "must give the two tensors lora_A and lora_B"),
        (body(f"return torch.randn(rank, base.in_features), {ZEROS}"), "uses or changes torch's global generator"),
        (random_start("torch.manual_seed(0)"), "uses or changes torch's global generator"),
        (random_start("random.random()"), "uses or changes Python's global generator"),
        (random_start("import numpy", "numpy.random.rand()"), "uses or changes NumPy's global generator"),
        (random_start("torch.set_default_dtype(torch.float64)"), "uses or changes torch's default type"),
        (random_start("base.weight.zero_()"), "it writes into the base's weight"),
        (
            body(
                "count[0] += 1",
                f"return torch.full((rank, base.in_features), count[0]), {ZEROS}",
                before="count = [0.0]",
            ),
            "a trial starts elsewhere alone than beside other trials",
        ),
        (
            body(
                "drawn = torch.randn(rank, base.in_features, generator=rng)",
                f"return first.setdefault(0, drawn), {ZEROS}",
                before="first = {}",
            ),
            "a trial starts elsewhere alone than beside other trials",
        ),
        (
            body(f"return base.svd[2].mul_(2)[:rank].clone(), {ZEROS}"),
            "a trial starts elsewhere alone than beside other trials",
        ),
        (
            body("return torch.ones(rank, base.in_features), torch.ones(base.out_features, rank)"),
            "B·A is not zero, so trials do not start at the base; the Init must say moves_base=True or starts_at_base=False",
        ),
    ],
)
def test_init_of_a_hostile_plugin_is_named_and_hurts_no_other_trial(
    tmp_path: Path, beside_ours: Callable[..., Record], source: str, says: str
) -> None:
    with on_path(install_init(tmp_path / "site", source)):
        own = beside_ours()
    assert own.status == "failed"
    assert own.error is not None
    assert own.error["type"] == "PluginError"
    assert own.error["message"].startswith("init mine of the plug-in hostile 1.0 (hostile_module")
    assert "its draw for layer layers.0 (10 × 64) at rank 8" in own.error["message"]
    assert says in own.error["message"]


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: torch.rand(1), "torch's global generator"),
        (random.random, "Python's global generator"),
        (numpy.random.rand, "NumPy's global generator"),
        (lambda: torch.set_default_dtype(torch.float64), "torch's default type"),
        (lambda: torch.set_num_threads(torch.get_num_threads() + 1), "torch's number of threads"),
    ],
)
def test_guarded_puts_back_what_was_changed(draw: Callable[[], object], says: str) -> None:
    plugin = Plugin("init", "mine", "m:mine", "hostile", "1.0")
    before = {name: read() for name, (read, _) in every_state().items()}
    with pytest.raises(PluginError, match=says), guarded(plugin, "its draw"):
        draw()
    assert {name: read() for name, (read, _) in every_state().items()} == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_guarded_puts_back_the_generators_of_cuda() -> None:
    torch.cuda.init()
    test_guarded_puts_back_what_was_changed(lambda: torch.rand(1, device="cuda"), "CUDA's generators")


def test_init_that_raises_is_named_with_its_line(tmp_path: Path, beside_ours: Callable[..., Record]) -> None:
    with on_path(install_init(tmp_path / "site", body("x = 1", "raise ZeroDivisionError('boom')"))):
        own = beside_ours()
    assert own.error is not None
    lines = (tmp_path / "site" / "hostile_module.py").read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if "raise" in line)
    assert f"(hostile_module.py, line {number})" in own.error["message"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("other = 1", "cannot be imported: AttributeError"),
        ("mine = 3", "is int, and must be an Init"),
        (f"torch.rand(1)\n{GOOD}", "importing uses or changes torch's global generator"),
    ],
)
def test_init_that_cannot_be_used_is_refused_and_unused_changes_nothing(
    tmp_path: Path, alone: dict[str, dict[str, Any]], source: str, says: str
) -> None:
    with on_path(install_init(tmp_path / "site", source)):
        with pytest.raises(PluginError) as caught:
            resolved("adapter.init=mine", cache=tmp_path)
        assert "init mine of the plug-in hostile 1.0 (hostile_module" in str(caught.value)
        assert says in str(caught.value)
        ours = run(resolved(*OURS, cache=tmp_path), Store(tmp_path / "s", None), HERE)
    assert {one.trial_id: untimed(one) for one in ours} == alone


def test_init_that_says_that_it_starts_elsewhere_may(tmp_path: Path, beside_ours: Callable[..., Record]) -> None:
    source = body(
        "ones = torch.ones",
        "return ones(rank, base.in_features), ones(base.out_features, rank)",
        init="@partial(Init, starts_at_base=False)",
    )
    with on_path(install_init(tmp_path / "site", source)):
        own = beside_ours()
    assert own.finished
    assert any(note.startswith("adapter start is not the base model") for note in own.notes)


PISSA = body(
    "u, s, vt = torch.linalg.svd(base.weight, full_matrices=False)",
    "root = torch.sqrt(s[:rank] / scaling)",
    "return root[:, None] * vt[:rank], u[:, :rank] * root",
    init="@partial(Init, moves_base=True, vectors='min')",
)


def test_init_of_a_plugin_with_the_product_of_pissa_has_its_regret_and_its_refusals(tmp_path: Path) -> None:
    said = {}
    with on_path(install_init(tmp_path / "site", PISSA)):
        trials = resolved("adapter.init=pissa adapter.rank=4", "adapter.init=mine adapter.rank=4", cache=tmp_path)
        pissa, own = run(trials, Store(tmp_path / "s", None), HERE)
        assert own.result == pissa.result
        assert own.params == pissa.params
        for init in ("pissa", "mine"):
            common = ("task=toy_regression", "task.hidden=[12]", "adapter.rank=11", "tracker=none")
            with pytest.raises(ConfigError) as caught:
                resolved(f"adapter.init={init}", common=common, cache=tmp_path)
            said[init] = str(caught.value)
    assert "init mine takes 11 singular vectors, and layers.1 has only 10" in said["mine"]
    assert said["mine"] == said["pissa"].replace("pissa", "mine")


def test_identity_of_a_trial_holds_the_plugin_that_it_uses_and_ours_hold_none(tmp_path: Path) -> None:
    asked = ("adapter.init=kaiming", "adapter=full", "adapter=none")
    before = [trial.id for trial in resolved(*asked, cache=tmp_path)]
    ids = []
    for number, source in enumerate((GOOD, GOOD, GOOD + "# changed\n")):
        with on_path(install_init(tmp_path / str(number), source)):
            assert [trial.id for trial in resolved(*asked, cache=tmp_path)] == before
            [own] = resolved("adapter.init=mine", cache=tmp_path)
            ids.append(own.id)
            assert own.flat()["adapter.plugin"].startswith("hostile 1.0 ")
    assert ids[0] == ids[1] != ids[2]


def test_table_needs_no_plugin(tmp_path: Path) -> None:
    with on_path(install_init(tmp_path / "site", GOOD)):
        run(resolved("adapter.init=mine", "adapter.init=kaiming", cache=tmp_path), Store(tmp_path / "s", None), HERE)
    trials = analysis.load(tmp_path / "s").trials
    assert sorted(trials["adapter.init"]) == ["kaiming", "mine"]
    assert trials["eval/loss"].notna().all()


def test_blaming_leaves_our_errors_and_those_of_the_user_as_they_are() -> None:
    plugin = Plugin("task", "mine", "no_such_package:mine", "hostile", "1.0")
    for error in (ZeroDivisionError("ours"), ConfigError(["task.own = 5: is too small"])):
        with pytest.raises(type(error)) as caught, blaming(plugin, "training"):
            raise error
        assert caught.value is error
