"""Each kind of mistake is one line that names the key, the value and what is allowed."""

import gzip
from pathlib import Path

import pytest

from sweep.adapters.options import AdapterOptions
from sweep.adapters.rank import scale_of
from sweep.config import check_name, parse
from sweep.errors import ConfigError
from sweep.registry import INITS, TASKS
from sweep.resolve import resolve
from tests.support.commands import config, resolved

TOY = "task=toy_regression"
*FIRST_INITS, LAST_INIT = map(repr, INITS.names)
TINY = ("task=transformer_tiny", "tracker=none")


def fault(*overrides: str) -> str:
    """The one fault of this configuration, found without training."""
    with pytest.raises(ConfigError) as caught:
        resolve(config(*overrides))
    [only] = caught.value.faults
    assert "\n" not in only
    return only


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("+adapter.rnk=4", "adapter.rnk: unknown key; did you mean adapter.rank?"),
        (
            "+adapter.qqq=4",
            "adapter.qqq: unknown key; known here: kind, peft, rank, alpha, init, dora, targets, layers, exclude, save, rank_pattern, alpha_pattern, scaling, dropout, bias",
        ),
        (
            "adapter.rank_pattern=3",
            "adapter.rank_pattern = 3: must hold keys and values, as in 'adapter.rank_pattern={NAME: VALUE}'",
        ),
        ("+sed=4", "sed: unknown key; did you mean seed?"),
        ("+task.nosie=1", "task.nosie: unknown key; did you mean task.noise?"),
        ("~optimizer.lr", "optimizer.lr: missing; give it with optimizer.lr=…"),
        ("adapter.rank=four", "adapter.rank = 'four': must be a valid integer"),
        ("adapter.rank=1.5", "adapter.rank = 1.5: must be a valid integer"),
        ("adapter.rank=true", "adapter.rank = True: must be a valid integer"),
        ("adapter.rank=0", "adapter.rank = 0: must be greater than or equal to 1"),
        ("adapter.rank=null", "adapter: a LoRA needs a value for rank"),
        ("adapter.rank=11", "adapter.rank = 11: no targeted layer can hold it; the largest possible rank here is 10"),
        ("adapter.alpha=0", "adapter.alpha = 0: must be greater than 0"),
        (
            "training.batch_size=4000000000000",
            "training.batch_size = 4000000000000: must be less than or equal to 1000000",
        ),
        ("adapter.alpha=inf", "adapter.alpha = inf: must be a finite number"),
        ("adapter.init=loftq", f"adapter.init = 'loftq': must be {', '.join(FIRST_INITS)} or {LAST_INIT}"),
        ("adapter.scaling=rank", "adapter.scaling = 'rank': must be 'alpha/rank', 'alpha/sqrt_rank' or 'alpha'"),
        ("adapter.bias=some", "adapter.bias = 'some': must be 'none', 'all' or 'lora_only'"),
        ("adapter.dropout=1", "adapter.dropout = 1: must be less than 1"),
        (
            "adapter.targets=attention",
            "adapter.targets = 'attention': matches no layer; this model's layers are layers.0; its presets are all_linear, mlp",
        ),
        (
            "adapter.targets=[q_proj]",
            "adapter.targets = ['q_proj']: 'q_proj' matches no layer; this model's layers are layers.0",
        ),
        ("adapter.targets=[]", "adapter.targets = []: an empty list; this model's layers are layers.0"),
        ("adapter.layers=[3]", "adapter.layers = [3]: no targeted layer has index 3; there are 0"),
        (
            "adapter.exclude=[w_proj]",
            "adapter.exclude = ['w_proj']: 'w_proj' matches no layer; the targeted layers are layers.0",
        ),
        ("adapter.exclude=[layers.0]", "adapter.exclude = ['layers.0']: leaves no layer to adapt"),
        (
            "adapter.exclude='(0'",
            "adapter.exclude = '(0': not a valid regular expression (missing ), unterminated subpattern at position 0)",
        ),
        (
            "adapter.rank_pattern={q_proj:4}",
            "adapter.rank_pattern = {'q_proj': 4}: 'q_proj' matches no layer; the targeted layers are layers.0",
        ),
        ("adapter.rank_pattern={layers.0:0}", "adapter.rank_pattern.layers.0 = 0: must be greater than or equal to 1"),
        (
            "adapter.rank_pattern={layers.0:11}",
            "adapter.rank = 8, rank_pattern = {'layers.0': 11}: no targeted layer can hold it; the largest possible rank here is 10",
        ),
        (
            "adapter.alpha_pattern={*:4}",
            "adapter.alpha_pattern: '*' is not a valid regular expression (nothing to repeat at position 0)",
        ),
        ("optimizer.lr_ratio=0", "optimizer.lr_ratio = 0: must be greater than 0"),
        ("optimizer.lr=0", "optimizer.lr = 0: must be greater than 0"),
        ("optimizer.lr=inf", "optimizer.lr = inf: must be a finite number"),
        ("optimizer.betas=[0.9,1]", "optimizer.betas.1 = 1: must be less than 1"),
        ("optimizer.name=lion", "optimizer.name = 'lion': must be 'adamw', 'adam' or 'sgd'"),
        ("optimizer.schedule=step", "optimizer.schedule = 'step': must be 'constant', 'linear' or 'cosine'"),
        ("training.steps=0", "training.steps = 0: must be greater than or equal to 1"),
        ("pruning=1", "pruning = 1: must be greater than or equal to 2"),
        (
            "pruning=2 training.eval_every=null",
            "pruning = 2: needs a training.eval_every below training.steps=500, to compare trials by",
        ),
        (
            "training.keep=best training.eval_every=null",
            "training.keep = 'best': needs a training.eval_every below training.steps=500, to choose from",
        ),
        (
            "pruning=2 training.eval_every=500",
            "pruning = 2: needs a training.eval_every below training.steps=500, to compare trials by",
        ),
        ("seed=-1", "seed = -1: must be greater than or equal to 0"),
        ("device=tpu", "device = 'tpu': must be 'auto', 'cpu' or 'cuda'"),
        ("tracker.mode=live", "tracker.mode = 'live': must be 'offline', 'online' or 'none'"),
        ("task.name=cifar", f"task.name = 'cifar': must be one of {', '.join(TASKS.names)}"),
        ("task.data=real", "task.data = 'real': must be 'planted' or 'tutorial'"),
        (
            "name=../../x",
            "name = '../../x': a name has letters, digits, '.', '_', '+' and '-', and begins with one of the first two",
        ),
        ("name=7", "name = 7: a name is text; give it a letter, as in name=run1"),
    ],
)
def test_parse_says_a_mistake_in_one_line(override: str, says: str) -> None:
    assert fault(TOY, *override.split()) == says


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "-m", "a b", "a\n", "é", "x" * 101])
def test_check_name_takes_one_visible_folder(name: str) -> None:
    with pytest.raises(ValueError, match="a name has letters"):
        check_name(name)


@pytest.mark.parametrize("name", ["rank", "my-study", "v1.2+a", "_x", "2026", "x" * 100])
def test_check_name_takes_a_plain_name(name: str) -> None:
    check_name(name)


def test_parse_tells_all_mistakes_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config(TOY, "adapter.rank=0", "seed=-1", "+training.stepz=3", "optimizer.lr=fast")
    assert [line.split(" ")[0].rstrip(":") for line in caught.value.faults] == [
        "seed",
        "adapter.rank",
        "optimizer.lr",
        "training.stepz",
    ]


@pytest.mark.parametrize("kind", ["full", "none"])
def test_parse_of_a_baseline_minds_no_lora_setting_but_a_misspelt_one(kind: str) -> None:
    assert config(TOY, f"adapter={kind}", "adapter.rank=-5").adapter == AdapterOptions(kind=kind)
    assert fault(TOY, f"adapter={kind}", "+adapter.rnk=4") == "adapter.rnk: unknown key; did you mean adapter.rank?"


def test_parse_refuses_checkpointing_where_there_is_nothing_to_checkpoint() -> None:
    assert fault(TOY, "training.checkpointing=true").startswith(
        "training.checkpointing = True: the model of task toy_regression has no blocks"
    )


@pytest.mark.parametrize("init", ["pissa", "milora", "olora"])
def test_resolve_refuses_a_decomposing_init_of_a_rank_above_a_layer(init: str) -> None:
    said = fault(TOY, "task.hidden=[16]", "adapter.rank=12", f"adapter.init={init}")
    assert said.startswith("adapter.rank = 12: ")
    assert "layers.1" in said
    assert "layers.0" not in said
    assert init in said


def test_resolve_notes_a_free_init_of_a_rank_above_a_layer(tmp_path: Path) -> None:
    [high, low] = resolved("adapter.rank=12", "adapter.rank=10", common=(TOY, "task.hidden=[16]"), cache=tmp_path)
    assert high.targets == low.targets == ("layers.0", "layers.1")
    assert low.notes == ()
    [note] = high.notes
    assert "12" in note
    assert "layers.1" in note
    assert "layers.0" not in note


def test_resolve_notes_the_largest_rank_above_a_layer() -> None:
    assert "largest possible rank here is 16" in fault(TOY, "task.hidden=[16]", "adapter.rank=17")


def test_resolve_names_a_missing_text(tmp_path: Path) -> None:
    path = tmp_path / "no.txt"
    assert fault(*TINY, f"task.source_text={path}") == f"task.source_text = '{path}': No such file or directory"


def test_resolve_names_a_text_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "bytes.txt"
    path.write_bytes(b"\xff\xfe" * 2000)
    assert fault(*TINY, f"task.target_text={path}") == f"task.target_text = '{path}': not a UTF-8 text"


def test_resolve_says_how_long_a_short_text_must_be(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("too short")
    said = fault(*TINY, f"task.source_text={path}")
    assert said == "task.source_text: 9 characters are too few; task.context=32 needs 660"


def test_resolve_names_the_ways_out_of_a_folder_without_digits(tmp_path: Path) -> None:
    said = fault("task=mnist", f"task.data={tmp_path / 'none'}")
    assert said.startswith(f"task.data = '{tmp_path / 'none'}': must be 'embedded', 'full' or a folder")
    assert (
        fault("task=mnist", f"task.data={tmp_path}")
        == f"task.data: {tmp_path}/t10k-labels-idx1-ubyte (or .gz) is missing"
    )


def test_resolve_refuses_damaged_digits(tmp_path: Path) -> None:
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(10_008)))
    assert "t10k-labels-idx1-ubyte" in (said := fault("task=mnist", f"task.data={tmp_path}"))
    assert "corrupt" in said


def test_resolve_names_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert fault(TOY, "device=cuda") == "device = 'cuda': torch finds no CUDA GPU here; use device=cpu or device=auto"


def test_parse_takes_the_mathematical_spelling_of_rslora() -> None:
    assert config(TOY, "adapter.scaling='alpha/√rank'") == config(TOY, "adapter.scaling=alpha/sqrt_rank")


@pytest.mark.parametrize(("scaling", "factor"), [("alpha/rank", 4.0), ("alpha/sqrt_rank", 8.0), ("alpha", 16.0)])
def test_parse_takes_every_scaling(scaling: str, factor: float) -> None:
    adapter = config(TOY, "adapter.rank=4", "adapter.alpha=16", f"adapter.scaling={scaling}").adapter
    assert scale_of(adapter, "layers.0") == factor


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": {"hidden": []}}, "task.name: missing; give it with task=…"),
        ({"task": 5}, "task = 5: must hold keys and values, as in task.NAME=VALUE"),
        ({"training": 5}, "training = 5: must hold keys and values, as in training.NAME=VALUE"),
    ],
)
def test_parse_says_what_a_group_must_hold(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(config(TOY).model_dump() | changes)
    assert list(caught.value.faults) == [says]


@pytest.mark.parametrize("key", ["targets", "exclude"])
def test_parse_names_the_key_of_a_wrong_layer_and_not_its_type(key: str) -> None:
    values = config(TOY).model_dump()
    values["adapter"][key] = [1]
    with pytest.raises(ConfigError) as caught:
        parse(values)
    assert list(caught.value.faults) == [f"adapter.{key} = [1]: must be a valid string"]


def test_parse_refuses_heads_that_do_not_divide_the_width() -> None:
    assert fault("task=transformer_tiny", "task.heads=5").endswith("must be an even multiple of heads=5")
