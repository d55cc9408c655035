"""What makes two trials the same trial, and what does not."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sweep.adapters.options import AdapterOptions
from sweep.registry import INITS
from sweep.resolve import resolve
from sweep.tasks import texts
from sweep.tasks.toy_regression.options import ToyRegressionOptions
from sweep.training.options import OptimizerOptions, TrainingOptions
from sweep.trial import Trial
from tests.support.commands import config

TOY = "task=toy_regression"


def trial(*overrides: str, data: str = "data") -> Trial:
    return Trial.of(config(*overrides), data)


def other(value: object) -> object:
    """A valid value beside ``value`` for any field of the schema."""
    match value:
        case bool():
            return not value
        case int():
            return value + 2
        case float():
            return value / 2 + 0.125
        case None:
            return 1
        case tuple():
            return tuple(other(item) for item in value) or (8,)
    raise AssertionError(value)


WORDS = {
    ("adapter", "kind"): "full",
    ("adapter", "init"): "gaussian",
    ("adapter", "peft"): "0123456789abcdef",
    ("adapter", "targets"): "mlp",
    ("adapter", "scaling"): "alpha",
    ("adapter", "bias"): "all",
    ("adapter", "layers"): (0,),
    ("adapter", "exclude"): "x",
    ("adapter", "save"): ("x",),
    ("adapter", "rank_pattern"): {"x": 1},
    ("adapter", "alpha_pattern"): {"x": 1.0},
    ("optimizer", "name"): "sgd",
    ("optimizer", "schedule"): "cosine",
    ("training", "keep"): "best",
    ("task", "name"): None,  # another task is another class
    ("task", "data"): None,  # other data have other settings
    ("task", "inputs"): "anisotropic",
}


def test_identity_has_every_field_of_the_science() -> None:
    """Of a default, too: no field is left out because nobody set it."""
    base = trial(TOY)
    ids, changed = {base.id}, 0
    for part in ("task", "adapter", "optimizer", "training"):
        values = getattr(base, part)
        for name in type(values).model_fields:
            new = WORDS[part, name] if (part, name) in WORDS else other(getattr(values, name))
            if new is None or name == "epochs":  # which say what steps there are
                continue
            section = values.model_copy(update={name: new})
            ids.add(replace(base, **{part: section}).id)
            changed += 1
    ids |= {replace(base, seed=1).id, replace(base, data="other").id}
    assert changed == 11 + 15 + 10 + 7  # a new setting adds to them
    assert len(ids) == 1 + changed + 2


CAUSAL_LM = (
    "task=causal_lm task.model=org/name task.context=64 task.eval_windows=64 task.target_text=null "
    "training.steps=200 training.batch_size=8 training.eval_every=50"
)
OF_BEFORE = {
    "task=toy_regression": "b8f950d1bb64967a",
    "task=toy_regression adapter.rank=2 seed=1": "aae761b1d6836a7a",
    "task=toy_regression adapter=full": "daa81fa4aced0f0a",
    "task=toy_regression adapter=none": "637a9970e82b81b2",
    "task=toy_regression task.data=tutorial": "30a62ef3b88f090e",
    "task=toy_regression task.hidden=[16] adapter.init=pissa task.noise=0.5": "a7554a27b384eccd",
    "task=mnist": "c025eb294581b599",
    "task=mnist task.shift=digit task.digit=3 adapter.rank=1": "209765f660ae7d99",
    "task=mnist task.data=/some/folder": "650de6f1e428cc17",
    "task=mnist task.pretraining.seed=1 task.hidden=[24]": "879bfd123a39d9a9",
    "task=transformer": "cac19bbc87bc7ee3",
    "task=transformer task.layers=2 adapter.targets=qv optimizer.lr_ratio=4": "0d7a4492bda19ea4",
    "task=transformer_tiny task.eval_windows=64": "5303ff543c088889",
    "task=transformer_tiny task.eval_windows=64 task.target_text=/some/text.txt": "179de280f77a778b",
    CAUSAL_LM: "11cada2258238103",
    f"{CAUSAL_LM} task.context=32 task.source_text=a.txt": "f712af1b705e68f5",
}
"""Ids on data with the fingerprint ``data``, taken when every task was listed by hand, and had no validation."""


@pytest.mark.parametrize("overrides", OF_BEFORE)
def test_identity_of_every_task_is_what_it_was(overrides: str) -> None:
    assert trial(*overrides.split(), "task.validation=0").id == OF_BEFORE[overrides]


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [(1, 167), (2, 334), (0.5, 84)],  # 4,000 digits, 3 batches of 8 in a step
)
def test_epochs_are_as_many_steps_as_they_need(epochs: float, steps: int) -> None:
    common = ("task=mnist", "task.validation=0", "training.batch_size=8", "training.accumulation=3")
    by_epochs = resolve(config(*common, f"training.epochs={epochs}"))
    assert (by_epochs.training.steps, by_epochs.flat()["training.epochs"]) == (steps, epochs)
    by_steps = resolve(config(*common, f"training.steps={steps}"))
    assert by_steps.id == by_epochs.id
    assert "training.epochs" not in by_steps.flat()


@pytest.mark.parametrize(
    "override",
    ["name=other", "tracker=none", "tracker.project=p", "device=cpu", "cache=elsewhere", "save_adapter=true"],
)
def test_identity_leaves_out_where_and_how_a_trial_is_kept(override: str) -> None:
    assert trial(TOY, override).id == trial(TOY).id


def test_identity_minds_the_order_of_a_pattern_whose_first_match_counts() -> None:
    first, second = "{layers.0:2,layers.*:4}", "{layers.*:4,layers.0:2}"
    assert trial(TOY, f"adapter.rank_pattern={first}").id != trial(TOY, f"adapter.rank_pattern={second}").id
    assert trial(TOY, f"adapter.rank_pattern={first}").flat()["adapter.rank_pattern"] == "{layers.0: 2, layers.*: 4}"
    assert trial(TOY, "adapter.rank_pattern={}").id == trial(TOY).id


def test_identity_of_a_value_is_the_same_however_it_was_written() -> None:
    assert trial(TOY, "optimizer.lr=0.01", "adapter.alpha=16.0").id == trial(TOY, "optimizer.lr=1e-2").id
    assert trial(TOY, "adapter.scaling='alpha/√rank'").id == trial(TOY, "adapter.scaling=alpha/sqrt_rank").id


def test_identity_of_full_and_none_drops_what_means_nothing_to_them() -> None:
    for kind in ("full", "none"):
        plain, with_settings = (
            trial(TOY, f"adapter={kind}", *more) for more in ((), ("adapter.rank=2", "adapter.init=pissa"))
        )
        assert plain == with_settings
        assert plain.id == with_settings.id
    assert trial(TOY, "adapter=full", "optimizer.lr=1").id != trial(TOY, "adapter=full").id
    assert trial(TOY, "adapter=full", "optimizer.lr_ratio=4").id == trial(TOY, "adapter=full").id
    assert trial(TOY, "adapter=none", "optimizer.lr=1", "training.steps=7").id == trial(TOY, "adapter=none").id
    assert trial(TOY, "adapter=none", "seed=1").id != trial(TOY, "adapter=none").id


def test_identity_of_the_same_data_elsewhere_is_the_same(tmp_path: Path) -> None:
    ids = set()
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        text = tmp_path / place / "a.txt"
        text.write_text("abc " * 300)
        ids.add(resolve(config("task=transformer_tiny", f"task.source_text={text}", f"task.target_text={text}")).id)
    ids |= {trial("task=mnist", f"task.data={place}").id for place in ("/here", "/there")}
    assert len(ids) == 2
    assert trial("task=mnist", "task.data=full").id != trial("task=mnist").id


def test_identity_of_another_text_is_another(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    ids = []
    for content in ("abc " * 300, "abd " * 300, "abc " * 300):
        text.write_text(content)
        texts._documents.cache_clear()
        one = config("task=transformer_tiny", f"task.source_text={text}", f"task.target_text={text}")
        ids.append(resolve(one).id)
    assert ids[0] != ids[1]
    assert ids[0] == ids[2]


def test_flat_has_one_key_for_each_number() -> None:
    flat = trial(TOY, "adapter.rank=4").flat()
    assert flat["adapter.rank"] == 4
    assert flat["seed"] == 0
    assert flat["task.name"] == "toy_regression"
    assert not any(isinstance(value, dict) for value in flat.values())


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        (("adapter.rank=4", "adapter.init=pissa", "seed=3"), "r4-a16-pissa-all_linear-lr0.01-s3"),
        (("adapter.targets=[layers.0,layers.2]", "adapter.alpha=0.5"), "r8-a0.5-kaiming-layers.0_layers.2-lr0.01-s0"),
        (("adapter.targets='layers[.](0|2)'", "optimizer.lr=3e-4"), "r8-a16-kaiming-layers_._0_2_-lr0.0003-s0"),
        (("adapter.dora=true",), "r8-a16-dora-kaiming-all_linear-lr0.01-s0"),
        (("optimizer.lr_ratio=16",), "r8-a16-kaiming-all_linear-lr0.01x16-s0"),
        (("adapter=full",), "full-lr0.01-s0"),
        (("adapter=none", "seed=12"), "none-s12"),
    ],
)
def test_label_is_readable_and_ends_in_the_identity(overrides: tuple[str, ...], label: str) -> None:
    one = trial(TOY, *overrides)
    assert one.label.replace("+", "_") == f"{label}-{one.id[:8]}"


def test_label_is_a_valid_short_folder_name() -> None:
    wild = "'" + "../" * 40 + "\\(a b|é:*?<>)'"
    for overrides in ((), (f"adapter.targets={wild}", "adapter.alpha=123456.789", "seed=123456789")):
        label = trial(TOY, *overrides).label
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{9,99}", label)


def test_identity_does_not_change_between_releases() -> None:
    """A changed identity would train every finished trial again."""
    task = ToyRegressionOptions(
        name="toy_regression",
        data="planted",
        in_features=4,
        out_features=2,
        hidden=(),
        samples=8,
        held_out=8,
        shift_rank=1,
        shift_scale=1.0,
        noise=0.0,
        inputs="white",
        data_seed=0,
    )
    optimizer = OptimizerOptions(
        name="sgd",
        lr=0.1,
        weight_decay=0.0,
        betas=(0.9, 0.999),
        eps=1e-8,
        momentum=0.0,
        schedule="constant",
        warmup_steps=0,
        clip_norm=None,
    )
    training = TrainingOptions(steps=1, batch_size=1, accumulation=1, checkpointing=False, log_every=1, eval_every=None)
    adapter = AdapterOptions(kind="full")
    assert Trial(task, adapter, optimizer, training, 0, "generated:planted").id == "f2a06ff8da4578f3"


def is_expression(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


names = st.text("abq_.*,: \"'{}()|0", min_size=1, max_size=6).filter(is_expression)
alphas = st.floats(min_value=1e-6, max_value=1e6)
patterns = st.none() | st.dictionaries(names, alphas, min_size=1, max_size=3)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(patterns, patterns)
@example({"layers.0": 1.23456789}, {"layers.0": 1.23456712})
@example({"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0})
@example({"a: 1, b": 2.0}, {"a": 1.0, "b": 2.0})
def test_identity_of_unequal_patterns_is_unequal(one: dict[str, float] | None, two: dict[str, float] | None) -> None:
    base = trial(TOY)
    first, second = (
        replace(base, adapter=AdapterOptions.model_validate(base.adapter.model_dump() | {"alpha_pattern": pattern}))
        for pattern in (one, two)
    )
    same = (list(one.items()) if one else None) == (list(two.items()) if two else None)
    assert (first.id == second.id) == same


def test_identity_of_patterns_that_six_digits_give_stays_as_it_was() -> None:
    pattern = {"layers.0": 0.5, "q_proj|v_{1,2}": 16.0, "x": 1e-05}
    assert (
        AdapterOptions(kind="none")
        .model_copy(update={"alpha_pattern": pattern})
        .model_dump(mode="json")["alpha_pattern"]
        == "{layers.0: 0.5, q_proj|v_{1,2}: 16, x: 1e-05}"
    )


OPTIONS = {
    "seed": st.integers(0, 3),
    "optimizer.lr": st.floats(1e-6, 1.0),
    "optimizer.weight_decay": st.floats(0, 1),
    "optimizer.schedule": st.sampled_from(["constant", "linear", "cosine"]),
    "optimizer.clip_norm": st.none() | st.floats(0.1, 10),
    "optimizer.lr_ratio": st.floats(0.5, 32),
    "training.steps": st.integers(1, 5),
    "training.batch_size": st.integers(1, 5),
    "training.eval_every": st.none() | st.integers(1, 5),
    "adapter.rank": st.integers(1, 5),
    "adapter.alpha": st.floats(0.5, 32),
    "adapter.init": st.sampled_from(INITS.names),
    "adapter.targets": st.sampled_from(["all_linear", ("layers.0",), "layers.0", ("all_linear",)]),
    "adapter.scaling": st.sampled_from(["alpha/rank", "alpha/sqrt_rank", "alpha"]),
    "adapter.dropout": st.floats(0, 0.5),
    "adapter.bias": st.sampled_from(["none", "all", "lora_only"]),
    "adapter.dora": st.booleans(),
    "adapter.layers": st.none() | st.tuples(st.integers(0, 1)),
    "adapter.exclude": st.none() | st.sampled_from(["x", ("x",)]),
    "task.samples": st.integers(2, 5),
    "task.noise": st.floats(0, 1),
    "task.hidden": st.sampled_from([(), (16,), (16, 16), (1, 6)]),
    "task.data_seed": st.integers(0, 3),
}
settings_of_a_trial = st.dictionaries(st.sampled_from(sorted(OPTIONS)), st.none(), max_size=4).flatmap(
    lambda keys: st.fixed_dictionaries({key: OPTIONS[key] for key in keys})
)


def with_settings(changes: dict[str, object]) -> Trial:
    base = trial(TOY)
    for key, value in changes.items():
        group, _, name = key.rpartition(".")
        changed = getattr(base, group).model_copy(update={name: value}) if group else value
        base = replace(base, **{group or name: changed})
    return base


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(settings_of_a_trial, settings_of_a_trial)
def test_identity_of_unequal_trials_is_unequal(one: dict[str, object], two: dict[str, object]) -> None:
    first, second = with_settings(one), with_settings(two)
    assert (first.id == second.id) == (first == second)


@pytest.mark.parametrize("group", ["task", "adapter", "optimizer", "training"])
def test_id_leaves_out_a_later_setting_of_any_group_at_its_old_value(
    group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = getattr(trial(TOY), group)
    *_, (name, value) = options.model_dump(mode="json").items()

    def id_with(unset: dict[str, object]) -> str:
        monkeypatch.setattr(type(options), "unset", unset)
        return trial(TOY).id

    assert id_with({name: value}) != id_with({}) == id_with({name: "another"})
