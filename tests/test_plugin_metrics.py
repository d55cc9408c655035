"""The metrics of plug-ins: measured of the trained layers and recorded; a fault is a note, and no trial changes."""

from pathlib import Path
from typing import Any

import pytest

from sweep.adapters.trained import TrainedLayers, load_metric
from sweep.launch.launch import run
from sweep.packs import train_pack
from sweep.registry import GROUPS, METRICS, PluginError
from sweep.store.store import Store
from tests.support.builders import attach, lora, mlp
from tests.support.commands import records, resolved
from tests.support.plugins import (
    HERE,
    OURS,
    install,
    on_path,
    ours_alone,
    without_metrics,
)

METRIC = """
from sweep.adapters.trained import LayerMetric
from sweep.metrics import Metric
def measure(layers):
    {}
mine = LayerMetric(Metric("{}", "mine", kind="{}"), measure, {})
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return ours_alone(tmp_path_factory.mktemp("alone"))


def install_metric(
    folder: Path, code: str, name: str = "eval/mine", kind: str = "end", tasks: object = None, package: str = "measures"
) -> Path:
    module = f"{package}_module"
    files = {f"{module}.py": METRIC.format(code, name, kind, tasks)}
    return install(folder, package, {GROUPS["metric"]: {"mine": f"{module}:mine"}}, files)


@pytest.mark.parametrize(
    ("code", "more", "says"),
    [
        ("raise ZeroDivisionError('boom')", {}, "measuring failed: ZeroDivisionError: boom"),
        ("return float('nan')", {}, "gave nan"),
        ("import torch; return torch.zeros(2)", {}, "measuring failed"),
        ("import torch; return float(torch.rand(1))", {}, "measuring uses or changes torch's global generator"),
        ("return 1.0", {"kind": "mean"}, "eval/mine is of kind mean, and must be of kind end"),
        ("return 1.0", {"name": "eval/loss"}, "eval/loss is given by lora-sweep or the task too"),
        ("return 1.0\nimport nothing_of_this_name", {}, "cannot be imported: ModuleNotFoundError"),
        (
            "[x.weight.zero_() for x in layers.values()]; [x.lora_A.zero_() for x in layers.values()]; return 1.0",
            {},
            "",
        ),
    ],
)
def test_metric_of_a_hostile_plugin_is_named_in_a_note_and_changes_no_trial(
    tmp_path: Path, alone: dict[str, dict[str, Any]], code: str, more: dict[str, Any], says: str
) -> None:
    with on_path(install_metric(tmp_path / "site", code, **more)):
        found = run(resolved(*OURS, cache=tmp_path), Store(tmp_path / "s", None), HERE)
    assert {one.trial_id: without_metrics(one) for one in found} == alone
    for one in found:
        if says:
            [note] = one.notes
            assert note.startswith("left out: metric mine of the plug-in measures 1.0 (measures_module")
            assert says in note
        else:
            assert (one.result["eval/mine"], one.notes) == (1.0, ())


def test_metric_is_measured_of_the_trained_layers_and_is_in_the_record(tmp_path: Path) -> None:
    code = (
        "layer = layers['layers.0']; assert (layer.delta() == layer.change).all(); return layer.delta().norm().item()"
    )
    with on_path(install_metric(tmp_path / "site", code)):
        [trial] = resolved("adapter.init=kaiming", cache=tmp_path)
        folder = tmp_path / "s"
        [one] = run([trial], Store(folder, None), HERE)
    assert one.result["eval/mine"] > 0
    assert one.metrics["eval/mine"] == {"label": "mine", "kind": "end"}
    assert one.environment["metric_plugins"]["mine"].startswith("measures 1.0 ")


def test_metric_is_measured_where_it_fits_and_of_a_lora(tmp_path: Path) -> None:
    asked = resolved("adapter.init=kaiming", "adapter=full", cache=tmp_path)
    with on_path(install_metric(tmp_path / "site", "return 1.0", tasks=("mnist",))):
        assert ["eval/mine" in one.result for one in run(asked, Store(tmp_path / "a", None), HERE)] == [False, False]
    with on_path(install_metric(tmp_path / "other", "return 1.0", tasks=("toy_regression",), package="fits")):
        assert ["eval/mine" in one.result for one in run(asked, Store(tmp_path / "b", None), HERE)] == [True, False]


def test_metric_that_is_new_or_changed_has_trials_trained_again_and_one_that_is_gone_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    train = train_pack.run_pack
    monkeypatch.setattr(train_pack, "run_pack", lambda *given: trained.append("") or train(*given))
    store, asked = Store(tmp_path / "s", None), resolved("adapter.init=kaiming", cache=tmp_path)
    run(asked, store, HERE)
    for name, code in (("a", "return 1.0"), ("b", "return 1.0"), ("c", "return 2.0")):
        with on_path(install_metric(tmp_path / name, code)):
            [one] = run(asked, store, HERE)
        assert one.result["eval/mine"] == (2.0 if name == "c" else 1.0)
    run(asked, store, HERE)
    assert len(trained) == 3
    assert len(records(tmp_path / "s")) == 1


def test_load_metric_refuses_what_is_no_metric(tmp_path: Path) -> None:
    with on_path(install(tmp_path, "measures", {GROUPS["metric"]: {"mine": "m:mine"}}, {"m.py": "mine = 5"})):
        [plugin] = METRICS.plugins
        with pytest.raises(PluginError, match=r"measures 1\.0 \(m:mine\): is int, and must be a LayerMetric"):
            load_metric(plugin)


def test_trained_layers_are_those_that_a_trial_adapts() -> None:
    layers = TrainedLayers(attach(mlp(4, 3, 2), lora(targets=("layers.1",))), 0)
    assert (len(layers), list(layers)) == (1, ["layers.1"])
