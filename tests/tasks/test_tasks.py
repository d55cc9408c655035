"""What every task promises, over all tasks of the registry, and what its author hears where it does not hold."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Generator, Tensor, nn

from sweep import metrics, record
from sweep.engines.options import LaunchOptions
from sweep.launch.cost import memory_of_one
from sweep.launch.launch import run
from sweep.metrics import LOSS, OF_PACK, Metric, with_domains
from sweep.models.llama import Llama
from sweep.models.mlp import MLP
from sweep.models.model import Model
from sweep.packs.base import CALIBRATION_POSITIONS, base_weights
from sweep.record import Record
from sweep.registry import TASKS
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store
from sweep.tasks.options import TaskOptions
from sweep.tasks.task import Batch, Examples, Task, require_declared
from sweep.training.evaluate import POSITIONS_AT_ONCE, evaluate
from tests.support.builders import NONE, NOWHERE, attach, digits, lora, regression, text
from tests.support.commands import history, records, resolved

SMALL = {
    "toy_regression": ("task=toy_regression", "task.samples=16", "task.held_out=16"),
    "mnist": ("task=mnist", "task.hidden=[8]", "task.pretraining.steps=2"),
    "transformer": ("task=transformer_tiny", "task.eval_windows=4", "task.pretraining.steps=2"),
}


def small(name: str, folder: Path, *each: str) -> list[ResolvedTrial]:
    """Trials of two steps of the task of this name."""
    common = ("training.steps=2", "training.eval_every=1", "tracker=none", "training.batch_size=2", "adapter.rank=2")
    if name == "causal_lm":
        tiny = pytest.importorskip("tests.support.hugging_face")
        values = tiny.causal_lm("llama", folder).model_dump(exclude={"name", "generate"}, exclude_none=True)
        task = ("task=causal_lm", *(f"task.{key}={value}" for key, value in values.items()))
    else:
        task = SMALL[name]
    return resolved(*each, common=(*task, *common), cache=folder)


@pytest.mark.parametrize("name", TASKS.names)
def test_registry_names_options_of_that_name(name: str) -> None:
    assert TASKS.load(name).model_fields["name"].annotation == Literal[name]
    assert issubclass(TASKS.load(name), TaskOptions)


def test_build_gives_equal_options_the_same_task() -> None:
    assert regression().build(NOWHERE) is regression().build(NOWHERE)
    assert regression().build(NOWHERE) is not regression(data_seed=1).build(NOWHERE)


@pytest.mark.parametrize("options", [regression(hidden=(20,)), digits(), text()], ids=lambda options: options.name)
@pytest.mark.parametrize("seed", [0, 3])
def test_new_model_draws_what_the_global_generator_would(options: TaskOptions, seed: int) -> None:
    task = options.build(NOWHERE)
    architecture: Callable[[], nn.Module] = {
        "toy_regression": lambda: MLP([12, 20, 8]),
        "mnist": lambda: MLP([784, 24, 16, 10]),
        "transformer": lambda: Llama(task.vocabulary, layers=2, width=16, heads=2, hidden=24, context=12),
    }[options.name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected, following = architecture(), torch.rand(1)
    rng, before = Generator().manual_seed(seed), torch.get_rng_state()
    model = task.new_model(rng)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.rand(1, generator=rng), following)
    assert model.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize("name", TASKS.names)
def test_metrics_are_all_that_a_task_measures_and_its_record_is_read_as_it_was_written(
    name: str, tmp_path: Path
) -> None:
    trials, store = small(name, tmp_path, "seed=0", "adapter=none", "adapter=full"), Store(tmp_path / "s", None)
    found = run(trials, store, LaunchOptions(workers=1))
    assert [one.status for one in found] == ["finished"] * 3
    for trial, one in zip(trials, found, strict=True):
        assert record.read(store.trial_folder(trial)) == Record.of(record.plain(one))
        assert metrics.of_plain(one.metrics) == {metric.name: metric for metric in trial.metrics}
        logged = {key for row in history(store.trial_folder(trial)) for key in row} - {"step"}
        figures = {f"params/{key}" for key in one.params} | {f"perf/{key}" for key in one.perf} - {"perf/train_seconds"}
        assert logged | one.result.keys() | figures <= one.metrics.keys()


WITHOUT_DIRECTION = {
    *("train/lr", "train/kept_step", "params/total", "perf/pack_size", "eval/oracle_risk"),
    *("perf/alone_step_iqr_ms", "perf/alone_base_memory_mb"),
    *(metric.name for metric in OF_PACK),
}


@pytest.mark.parametrize("name", TASKS.names)
def test_metrics_have_a_direction_or_are_known_to_have_none(name: str, tmp_path: Path) -> None:
    [trial] = small(name, tmp_path, "seed=0")
    assert LOSS in trial.task.build(trial.cache_folder).metrics
    assert {metric.name for metric in trial.metrics if metric.better is None} <= WITHOUT_DIRECTION
    names = [metric.name for metric in trial.metrics]
    assert len(names) == len(set(names))


def test_with_domains_by_hand() -> None:
    ece, wrong = Metric("eval/ece", "ECE", better="lower"), Metric("eval/wrong", "errors", kind="sum")
    end = Metric("eval/regret", "regret", kind="end")
    assert [metric.name for metric in with_domains([ece, end, wrong])] == [
        *("eval/ece", "eval/wrong", "eval/source_ece", "eval/source_wrong"),
        *("eval/base_ece", "eval/base_source_ece"),
        *("test/ece", "test/wrong", "test/source_ece", "test/source_wrong"),
        *("test/base_ece", "test/base_source_ece", "eval/regret"),
    ]


def test_metrics_come_back_from_what_a_record_holds() -> None:
    ours = [*metrics.OURS.values(), Metric("eval/ece", "ECE", "%", None, None, "end")]
    plain = json.loads(json.dumps(metrics.to_plain(ours)))
    assert list(metrics.of_plain(plain).values()) == ours
    assert plain["eval/loss"] == {"label": "eval loss", "better": "lower", "tuned_on": "eval/loss", "kind": "mean"}


@pytest.mark.parametrize("name", ["ece", "", "/ece", "eval/"])
def test_metrics_without_their_full_name_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"metric '{name}': must be a full name, such as eval/"):
        Metric(name, "ECE")


@dataclass(frozen=True)
class Tokens(Examples):
    """A domain that remembers how many rows each batch had."""

    drawn: list[int] = field(default_factory=list)

    def batches(self, rng: Generator, rows: int) -> Iterator[Batch]:
        for batch in super().batches(rng, rows):
            self.drawn.append(len(batch.inputs))
            yield batch


class Tagger(Model):
    """Tokens (B, S) in, a class for each row out."""

    presets = {"all_linear": ("inner", "head")}  # noqa: RUF012
    stages = ("inner", "head")

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner, self.head = nn.Embedding(11, 4), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.inner(self.embedding(tokens)).mean(1))


@dataclass(frozen=True)
class Labels(Task):
    """Sequences of 16 tokens, each with one label."""

    metrics = (LOSS, Metric("eval/sure", "sure", kind="sum"), Metric("eval/ece", "ECE", kind="end"))
    given: Mapping[str, str] = field(default_factory=dict)

    def new_model(self, rng: Generator) -> Model:
        return Tagger()

    def base(self) -> Model:
        return Tagger()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    def scores(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        scores = {LOSS.name: self.loss(outputs, targets), "eval/sure": outputs.amax(1) > 0.5}
        return scores | ({self.given["scores"]: scores[LOSS.name]} if "scores" in self.given else {})

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        return {self.given["derive"]: 1.0} if "derive" in self.given else {}

    def closing(self, folded: Any, adapters: Sequence[Any]) -> list[dict[str, float]]:
        return [{self.given.get("closing", "eval/ece"): 0.25} for _ in adapters]


class LabelsOptions(TaskOptions):
    """The options of ``Labels``; ``given`` are names of metrics that it does not declare, by where it gives them."""

    name: Literal["labels"] = "labels"
    given: tuple[tuple[str, str], ...] = ()

    def fingerprint(self, cache_folder: Path) -> str:
        return "labels"

    def make(self, cache_folder: Path) -> Task:
        rng = Generator().manual_seed(0)
        rows = Batch(torch.randint(11, (40, 16), generator=rng), torch.randint(3, (40,), generator=rng))
        domain = Tokens(rows, rows, positions=16)
        return Labels(domain, domain, given=dict(self.given))


def test_positions_are_told_by_the_domain_where_tokens_have_one_label(tmp_path: Path) -> None:
    [trial] = resolved("training.batch_size=5 adapter.rank=2", cache=tmp_path)
    task = LabelsOptions().build(tmp_path)
    widths = (4 + 8) + (8 + 3)
    labelled = replace(trial, task=LabelsOptions())
    assert memory_of_one(labelled) == 4 * (7 * 2 * widths + 3 * 5 * 16 * widths)
    weights = base_weights(task.base(), task)
    assert weights["inner"].input_directions.shape == (4, 4)
    rows = POSITIONS_AT_ONCE // 16
    assert task.target.drawn == [rows] * (CALIBRATION_POSITIONS // POSITIONS_AT_ONCE)


def test_evaluate_sums_and_averages_by_the_kind_of_the_metric(tmp_path: Path) -> None:
    task = LabelsOptions().build(tmp_path)
    folded = attach(task.base().requires_grad_(False), NONE)
    [row] = evaluate(folded, task, task.target)
    outputs, targets = folded.model(task.target.held_out.inputs), task.target.held_out.targets
    assert row.keys() == {"eval/loss", "eval/sure"}
    assert row["eval/loss"] == pytest.approx(task.loss(outputs, targets).mean().item(), rel=1e-6)
    assert row["eval/sure"] == int((outputs.amax(1) > 0.5).sum())


@pytest.mark.parametrize("where", ["scores", "derive", "closing"])
@pytest.mark.parametrize("name", ["ece", "eval/other"])
def test_metrics_that_are_undeclared_fail_the_first_trial_by_name(where: str, name: str, tmp_path: Path) -> None:
    options = LabelsOptions(given=((where, name),))
    [trial], store = resolved("training.steps=2 training.eval_every=1", cache=tmp_path), Store(tmp_path / "s", None)
    labelled = replace(trial, task=options, targets=("inner",))
    [one] = run([labelled], store, LaunchOptions(workers=1))
    assert one.status == "failed"
    assert one.error is not None
    assert one.error["message"].startswith(f"Labels measured {name!r}, which its metrics do not declare; of kind ")
    assert one.result == {}
    assert records(store.folder) == {labelled.label: one}


def test_require_declared_minds_the_kind(tmp_path: Path) -> None:
    task = LabelsOptions().build(tmp_path)
    require_declared(task, ["eval/ece"], "end")
    with pytest.raises(ValueError, match=r"'eval/ece', .*; of kind mean or sum they are eval/loss, eval/sure"):
        require_declared(task, ["eval/loss", "eval/ece"], "mean", "sum")


@pytest.fixture
def inputs_of() -> Callable[[ResolvedTrial], dict[str, Path]]:
    """What a node is given; Ray itself may not be installed."""
    pytest.importorskip("ray")
    return import_module("sweep.engines.ray").inputs_of


def test_cached_files_of_the_full_digits_go_to_another_node(inputs_of: Any, tmp_path: Path) -> None:
    [trial] = resolved("seed=0", cache=tmp_path)
    (tmp_path / "mnist").mkdir()
    for name in ("train-images-idx3-ubyte", "a.lock", "t10k-labels-idx1-ubyte"):
        (tmp_path / "mnist" / name).touch()
    full = replace(trial, task=digits(data="full"), data="digits")
    assert inputs_of(full) == {
        f"cache/mnist/{name}": tmp_path / "mnist" / name
        for name in ("t10k-labels-idx1-ubyte", "train-images-idx3-ubyte")
    }
    assert inputs_of(replace(trial, task=digits(), data="digits")) == inputs_of(trial) == {}


def test_own_paths_are_what_another_node_is_given_under_its_name(inputs_of: Any, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("abc")
    [trial] = resolved("seed=0", cache=tmp_path)
    own = replace(trial, task=text(target_text=str(tmp_path / "own.txt")), data="texts", adapter=lora())
    assert inputs_of(own) == {"target_text/own.txt": tmp_path / "own.txt"}
