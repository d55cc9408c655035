"""An initialisation that is one function and one line of the registry works wherever ours do."""

from functools import partial
from pathlib import Path

import pytest
import torch

from sweep.adapters.fold import export
from sweep.adapters.inits.check import check_ranks
from sweep.adapters.options import AdapterOptions
from sweep.adapters.peft.export import to_peft
from sweep.errors import ConfigError
from sweep.launch.cost import trainable_of
from sweep.packs.base import load_base
from sweep.packs.run_pack import run_pack
from sweep.registry import INITS
from sweep.store.store import Store
from tests.support.builders import attach, lora, mlp, randn
from tests.support.commands import resolved
from tests.support.own_init import PLACE

REGRET = ("task=toy_regression", "adapter.rank=4", "training.steps=50", "training.eval_every=10", "tracker=none")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INITS.places, "top_left", PLACE)  # type: ignore[arg-type]


def test_new_init_has_the_regret_of_the_init_whose_product_it_has(tmp_path: Path) -> None:
    trials = resolved("adapter.init=pissa", "adapter.init=top_left", common=REGRET, cache=tmp_path)
    task = trials[0].task.build(tmp_path)
    base = load_base(trials[0].task, trials[0].data, task, tmp_path, torch.device("cpu"))
    record_of = partial(Store(tmp_path, None).record_of, environment={})
    (pissa, own), folded, *_ = run_pack(trials, task, base, record_of, lambda step, rows: None, lambda step: None)
    assert own.result["eval/regret"] == pytest.approx(0.039, abs=5e-4)  # 0.222 beside the oracle of the whole base
    assert own.result == pissa.result
    assert own.params == pissa.params
    assert own.params["trainable"] == trainable_of(trials[1]) == 4 * (64 + 10)
    ours, theirs = export(folded, 0), export(folded, 1)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_new_init_starts_at_the_base_and_is_exported_with_what_it_moved() -> None:
    base, x, adapter = mlp(12, 20, 8), randn(6, 12), lora(init="top_left", rank=3)
    folded = attach(base, adapter)
    torch.testing.assert_close(folded.outputs(x, sees=[0]), base(x), atol=1e-6, rtol=1e-6)
    assert not folded.starts_at_base()  # within rounding, not bit for bit
    config, _ = to_peft(folded, 0, adapter)
    assert config["r"] == 6


def test_new_init_is_refused_where_a_layer_has_too_few_vectors() -> None:
    shapes, said = {"wide": (20, 12), "narrow": (10, 12)}, {}
    for init in ("pissa", "top_left"):
        with pytest.raises(ConfigError) as caught:
            check_ranks(lora(rank=12, init=init), shapes)
        [said[init]] = caught.value.faults
    assert said["top_left"].startswith(
        "adapter.rank = 12: init top_left takes 12 singular vectors, and narrow has only 10"
    )
    assert said["top_left"] == said["pissa"].replace("pissa", "top_left")


def test_new_init_is_an_allowed_name() -> None:
    with pytest.raises(ValueError, match="'lora_ga' or 'top_left'"):
        AdapterOptions.model_validate(lora().model_dump() | {"init": "topleft"})
