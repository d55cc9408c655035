"""A Hugging Face model and its tokenizer as a task, and what is said when one of them is not what it should be."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sweep.adapters.fold import linear_layers
from sweep.adapters.targets import select
from sweep.config import Config
from sweep.errors import ConfigError
from sweep.models import hugging_face
from sweep.models.folder import sha256_of
from sweep.models.model import check_rows_are_independent
from sweep.resolve import resolve
from sweep.tasks.causal_lm.options import CausalLMOptions
from sweep.tasks.causal_lm.task import causal_lm
from tests.support import hugging_face as tiny
from tests.support.builders import bits, equal, lora
from tests.support.commands import config
from tests.support.hugging_face import CACHE


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> CausalLMOptions:
    return tiny.causal_lm("llama", tmp_path_factory.mktemp("llama"))


def copied(one: CausalLMOptions, folder: Path, **changes: Any) -> CausalLMOptions:
    """The same model in a folder of its own, to be damaged."""
    shutil.copytree(one.model, folder / "model")
    return one.model_copy(update={"model": str(folder / "model"), **changes})


def configured(one: CausalLMOptions, *more: str) -> Config:
    """What the command line makes of this task."""
    values = [
        f"task.{key}={value}" for key, value in one.model_dump(exclude={"name", "generate"}, exclude_none=True).items()
    ]
    return config("task=causal_lm", *values, *more)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(one: CausalLMOptions) -> str:
    with pytest.raises(ConfigError) as caught:
        causal_lm(one, CACHE).base()
    [fault] = caught.value.faults
    assert fault.startswith("task.")
    return fault


def test_causal_lm_tokens_are_those_of_the_models_own_tokenizer(llama: CausalLMOptions) -> None:
    task = causal_lm(llama, CACHE)
    content = Path(str(llama.source_text)).read_text()
    tokens = tiny.tokenizer()(content, add_special_tokens=False)["input_ids"]
    assert task.source.train.tolist() == tokens[: len(task.source.train)]
    assert tiny.tokenizer().decode(task.source.train[:40]) == content[: len(tiny.tokenizer().decode(tokens[:40]))]


def test_causal_lm_documents_are_parted_by_the_end_of_text(llama: CausalLMOptions) -> None:
    task = causal_lm(llama, CACHE)
    documents = [json.loads(line)["text"] for line in Path(str(llama.target_text)).read_text().splitlines()]
    read = tiny.tokenizer().decode(task.target.train).split("<end>")
    assert read[:-1] == documents[: len(read) - 1]
    assert len(read) > 20


def test_causal_lm_documents_are_the_clusters_of_what_windows_show_of_them(llama: CausalLMOptions) -> None:
    task = causal_lm(llama.model_copy(update={"eval_windows": 100}), CACHE)
    division, targets = task.target.division, task.target.held_out.targets
    spans = [targets.flatten()[begin:end] for begin, end in division.spans.tolist()]
    assert torch.cat(spans).tolist() == targets.flatten().tolist()
    end = tiny.tokenizer().eos_token_id
    assert all(end not in span[:-1] for span in spans)  # an end belongs to the document that it ends
    rows, clusters = (division.spans[:, 0] // targets.shape[1]).tolist(), division.cluster.tolist()
    crossings = [place for place in range(1, len(spans)) if rows[place] == rows[place - 1]]
    assert len(crossings) == len(spans) - len(targets) > 3
    for place in crossings:
        assert spans[place - 1][-1] == end
        assert clusters[place] == clusters[place - 1] + 1
    assert task.source.division.spans is None


def test_causal_lm_base_is_the_model_as_it_is(llama: CausalLMOptions) -> None:
    task = causal_lm(llama, CACHE)
    expected = tiny.network("llama").eval()(task.target.held_out.inputs).logits
    assert torch.equal(task.base()(task.target.held_out.inputs), expected)
    assert task.base() is task.base()  # loaded once
    assert task.notes == ()


def test_causal_lm_switches_dropout_off_and_notes_it(tmp_path: Path) -> None:
    task = causal_lm(tiny.causal_lm("gpt2", tmp_path), CACHE)
    check_rows_are_independent(task.base())
    assert task.notes == (
        "the model's own dropout is off: resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, summary_first_dropout=0.1",
    )


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("llama", {"all_linear": 14, "attention": 8, "mlp": 6, "qv": 4}),
        ("opt", {"all_linear": 12, "attention": 8, "mlp": 4, "qv": 4}),
        ("gpt2", {"all_linear": 8, "attention": 4, "mlp": 4}),
        ("bert", {"all_linear": 13, "attention": 8, "mlp": 5, "qv": 4}),
    ],
)
def test_causal_lm_presets_name_the_layers_of_each_family(family: str, sizes: dict[str, int]) -> None:
    model = hugging_face.as_model(tiny.network(family))
    names = list(linear_layers(model))
    assert {preset: len(select(lora(targets=preset), names, model.presets)) for preset in model.presets} == sizes
    assert len(names) == sizes["all_linear"] + 1  # and the head


def test_causal_lm_validation_reads_no_weights(tmp_path: Path, llama: CausalLMOptions) -> None:
    one = copied(llama, tmp_path)
    (Path(one.model) / "model.safetensors").write_bytes(b"never opened")
    assert len(resolve(configured(one)).targets) == 14
    assert refused(one).startswith("task.model = 'model': cannot be used as a causal language model: ")


def test_causal_lm_fingerprint_is_of_weights_and_not_of_places(tmp_path: Path, llama: CausalLMOptions) -> None:
    one = copied(llama, tmp_path)
    assert one.fingerprint(CACHE) == llama.fingerprint(CACHE)
    assert one.own_paths() == {"model", "source_text", "target_text"}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        content = (Path(one.model) / name).read_bytes()
        (Path(one.model) / name).write_bytes(content + b" ")
        sha256_of.cache_clear()
        assert one.fingerprint(CACHE) != llama.fingerprint(CACHE)
        (Path(one.model) / name).write_bytes(content)


def test_model_folder_that_is_none_is_refused_by_name(tmp_path: Path, llama: CausalLMOptions) -> None:
    def with_model(model: str) -> CausalLMOptions:
        return llama.model_copy(update={"model": model})

    (tmp_path / "empty").mkdir()
    assert refused(with_model(str(tmp_path / "empty"))).endswith(
        "has no config.json; give a folder that save_pretrained has written"
    )
    assert refused(with_model("/no/where/at/all")).endswith(
        "no such folder, and no name on the Hugging Face hub, which looks like org/name"
    )
    one = copied(llama, tmp_path)
    (Path(one.model) / "model.safetensors").rename(Path(one.model) / "pytorch_model.bin")
    assert "has no *.safetensors; other formats can run code" in refused(one)


def test_model_hub_that_cannot_be_reached_is_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, llama: CausalLMOptions
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    says = refused(llama.model_copy(update={"model": "org/model"}))
    assert says.startswith("task.model = 'org/model': not a folder, and the Hugging Face hub could not be reached (")
    assert says.endswith("fetch it with: hf download org/model --local-dir FOLDER, and give the folder")


def test_model_from_the_hub_keeps_its_name_in_messages(tmp_path: Path) -> None:
    assert hugging_face.name_of(tmp_path / "models--org--own-model" / "snapshots" / "0a1b") == "org/own-model"
    assert hugging_face.name_of(tmp_path / "own-model") == "own-model"


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("config.json", {"model_type": "nothing"}, "cannot be used as a causal language model: "),
        ("config.json", {"model_type": "t5"}, "cannot be used as a causal language model: "),
        (
            "config.json",
            {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}},
            "contains custom code which must be executed",
        ),
        ("config.json", {"model_type": "gemma3"}, "reads more than text; give a text-only model"),
        ("config.json", {"num_hidden_layers": 3}, "its files lack 9 weights, such as model.layers.2."),
        ("config.json", {"vocab_size": 200}, "they do not belong together"),
        ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantised"),
        ("tokenizer.json", {"model": {}}, "its tokenizer cannot be loaded: "),
    ],
)
def test_model_that_cannot_be_used_is_refused_with_the_reason(
    file: str, changes: dict[str, Any], says: str, tmp_path: Path, llama: CausalLMOptions
) -> None:
    one = copied(llama, tmp_path)
    edit(Path(one.model) / file, **changes)
    assert says in refused(one)


def test_model_folder_without_a_tokenizer_is_refused(tmp_path: Path, llama: CausalLMOptions) -> None:
    one = copied(llama, tmp_path)
    for path in Path(one.model).glob("tokenizer*"):
        path.unlink()
    assert refused(one).endswith("has no tokenizer; put it there with tokenizer.save_pretrained")


def test_model_that_is_not_causal_is_refused(tmp_path: Path, llama: CausalLMOptions) -> None:
    tiny.transformers.BertLMHeadModel(tiny.network("bert").config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    says = refused(llama.model_copy(update={"model": str(tmp_path)}))
    assert says.endswith("is not causal: later tokens change earlier predictions")


class Wrong(nn.Module):
    """A model with a fault that no configuration tells of."""

    def __init__(self, fault: str):
        super().__init__()
        self.fault, self.embedding = fault, nn.Embedding(50, 50)
        self.config = schema_of_fifty

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.embedding(tokens)
        if self.fault == "random" and self.training:
            return nn.functional.dropout(logits, 0.5)
        return logits - logits.mean(0) if self.fault == "rows" else logits


schema_of_fifty: Any = type("Config", (), {"vocab_size": 50})


@pytest.mark.parametrize(
    ("fault", "says"), [("random", "another result each time"), ("rows", "the rows of a batch change each other")]
)
def test_model_whose_rows_meet_or_are_random_is_found_by_computing(fault: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        hugging_face.check_independence(Wrong(fault), "wrong")
    hugging_face.check_independence(Wrong(""), "right")


def test_model_with_batch_normalisation_is_refused_by_name(llama: CausalLMOptions) -> None:
    model = hugging_face.as_model(tiny.network("llama"))
    model.get_submodule("model").add_module("bn", nn.BatchNorm1d(4))
    with pytest.raises(ConfigError, match=r"layer model\.bn is a batch normalisation"):
        check_rows_are_independent(model)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"context": 33}, "task.context = 33: the model reads at most 32 tokens"),
        ({"source_text": "empty.txt"}, "task.source_text: 0 tokens are too few; task.context=12 needs 260"),
        (
            {"target_text": "bad.jsonl"},
            'task.target_text = \'bad.jsonl\': line 2 is none of {"text": …}, {"prompt": …, "completion": …} or {"messages": [{"role": …, "content": …}, …]}',
        ),
        (
            {"target_text": "broken.jsonl"},
            'task.target_text = \'broken.jsonl\': line 1 is not JSON (Expecting value: line 1 column 1 (char 0)); expected is {"text": …}, {"prompt": …, "completion": …} or {"messages": [{"role": …, "content": …}, …]}',
        ),
        ({"target_text": "nowhere.txt"}, "task.target_text = 'nowhere.txt': No such file or directory"),
    ],
)
def test_causal_lm_texts_that_cannot_be_used_are_refused_with_the_reason(
    changes: dict[str, Any], says: str, tmp_path: Path, llama: CausalLMOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\n{"content": "bad"}\n')
    (tmp_path / "broken.jsonl").write_text("text\n")
    monkeypatch.chdir(tmp_path)
    assert refused(llama.model_copy(update=changes)) == says


def test_causal_lm_biases_outside_linear_layers_are_not_passed_over(tmp_path: Path) -> None:
    one = tiny.causal_lm("opt", tmp_path)
    asked = configured(one, "adapter.bias=all")
    with pytest.raises(
        ConfigError, match=r"adapter\.bias = 'all': .* such as that of model\.decoder\.final_layer_norm"
    ):
        resolve(asked)


def test_causal_lm_without_transformers_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, llama: CausalLMOptions
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'transformers>=5'"):
        hugging_face.import_transformers()


def test_causal_lm_new_model_is_the_architecture_with_the_numbers_of_its_generator(llama: CausalLMOptions) -> None:
    task = causal_lm(llama, CACHE)
    one, again, other = (task.new_model(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert equal(bits(one), bits(again))
    assert not equal(bits(one), bits(other))
    assert {name: value.shape for name, value in bits(one).items()} == {
        name: value.shape for name, value in bits(task.base()).items()
    }
