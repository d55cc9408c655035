"""What is trained on and what is held out, from the user's files to the tokens in the cache."""

import json
from pathlib import Path

import pytest
import torch

from sweep.errors import ConfigError
from sweep.models.gguf import SMOLLM2, SMOLLM2_SHA256
from sweep.tasks.causal_lm import data
from sweep.tasks.causal_lm.data import splits
from sweep.tasks.causal_lm.options import CausalLMOptions, GenerateOptions
from sweep.tasks.causal_lm.rows import Chat, verses
from sweep.tasks.causal_lm.task import causal_lm
from sweep.tasks.task import Examples
from tests.support import hugging_face as tiny


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> CausalLMOptions:
    return tiny.chats("llama", tmp_path_factory.mktemp("chats"))


def prompts(options: CausalLMOptions, count: int) -> CausalLMOptions:
    return options.model_copy(update={"generate": GenerateOptions(prompts=count, tokens=1)})


def lines(path: Path, count: int) -> str:
    """The first rows of a file, in one of their own."""
    own = path.with_name(f"{count}.jsonl")
    own.write_text("".join(path.read_text().splitlines(keepends=True)[:count]))
    return str(own)


def test_held_out_rows_are_the_last_tenth(chats: CausalLMOptions) -> None:
    records = [json.loads(line)["messages"] for line in Path(str(chats.target_text)).read_text().splitlines()]
    task = causal_lm(prompts(chats, 10), tiny.CACHE)
    asked = [prompt.text.rstrip() for prompt in task.prompts]
    assert asked == [f"user: {messages[0]['content']}<end>\nassistant:" for messages in records[-6:]]
    assert [prompt.expected for prompt in task.prompts] == [messages[1]["content"] for messages in records[-6:]]


def test_test_text_is_held_out_in_the_place_of_the_last_tenth(chats: CausalLMOptions) -> None:
    file = Path(str(chats.target_text))
    own = chats.model_copy(update={"test_text": lines(file, 7)})
    assert own.own_paths() == {"model", "source_text", "target_text", "test_text"}
    assert own.fingerprint(tiny.CACHE) != chats.fingerprint(tiny.CACHE)
    assert len(causal_lm(prompts(own, 10), tiny.CACHE).prompts) == 7
    _, target = splits(own)
    assert len(target.train) == 60
    text = own.model_copy(update={"test_text": chats.source_text})
    with pytest.raises(
        ConfigError,
        match=r"^task\.test_text = '.*': its rows are passages, task\.target_text of chats; they must be of one kind$",
    ):
        causal_lm(text, tiny.CACHE)


def test_test_text_with_rows_of_the_target_is_counted(chats: CausalLMOptions) -> None:
    rows = Path(str(chats.target_text))
    other = json.dumps({"messages": [{"role": role, "content": "new"} for role in ("user", "assistant")]})
    mixed = rows.with_name("mixed.jsonl")
    mixed.write_text("\n".join([other, *rows.read_text().splitlines()[:3]]))
    task = causal_lm(chats.model_copy(update={"test_text": str(mixed)}), tiny.CACHE)
    assert task.notes[0] == "held-out task.target_text: 3 of 4 rows are also trained on"
    last = rows.with_name("last.jsonl")
    last.write_text("\n".join([other, rows.read_text().splitlines()[-1]]))
    task = causal_lm(chats.model_copy(update={"test_text": str(last), "validation": 2}), tiny.CACHE)
    assert task.notes[0] == "held-out task.target_text: 1 of 2 rows are also used for validation"


def test_texts_held_out_that_are_also_trained_on_are_counted(chats: CausalLMOptions, tmp_path: Path) -> None:
    documents = [json.dumps({"text": f"{number} and so on. " * 50}) for number in range(9)]
    for name, own in (("target", documents[:8]), ("test", documents[6:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(own))
    values = {"target_text": str(tmp_path / "target.jsonl"), "test_text": str(tmp_path / "test.jsonl"), "validation": 0}
    task = causal_lm(chats.model_copy(update=values), tiny.CACHE)
    assert task.notes == ("held-out task.target_text: 2 of 3 rows are also trained on",)


def test_verses_are_the_target_with_their_own_chapters_held_out(chats: CausalLMOptions) -> None:
    _, target = splits(chats.model_copy(update={"target_text": "verses"}))
    assert (target.train, (), target.held_out) == verses(withholds=False)
    assert isinstance(target.train[0], Chat)
    values = chats.model_dump() | {"target_text": "verses"}
    for more in ({"test_text": "a.jsonl"}, {"source_text": "verses"}):
        with pytest.raises(ValueError, match="verses"):
            CausalLMOptions.model_validate(values | more)


def test_tokens_are_made_once_for_the_same_rows_tokenizer_and_settings(
    chats: CausalLMOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = causal_lm(chats, tmp_path)
    assert len(list((tmp_path / "tokens").glob("*.safetensors"))) == 2

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(data, "tokenise", never)
    again = causal_lm(chats, tmp_path)
    assert isinstance(first.target, Examples)
    assert isinstance(again.target, Examples)
    for one, other in zip(first.target.train, again.target.train, strict=True):
        assert torch.equal(one, other)
    for change in ({"context": 30}, {"loss_on": "all"}):
        with pytest.raises(AssertionError):
            causal_lm(chats.model_copy(update=change), tmp_path)


def test_family_that_cannot_take_blocks_is_padded_and_says_so(tmp_path: Path) -> None:
    task = causal_lm(tiny.chats("opt", tmp_path), tmp_path)
    assert isinstance(task.target, Examples)
    assert task.target.train.inputs.shape == (54, 32)
    assert (
        task.notes[-1]
        == "task.target_text: rows are padded to task.context; this model cannot tell several in one block apart"
    )


def test_prompts_of_running_text_and_too_few_rows_are_refused(chats: CausalLMOptions) -> None:
    text = prompts(chats, 3).model_copy(update={"target_text": chats.source_text})
    with pytest.raises(ConfigError, match=r"task\.generate\.prompts = 3: task\.target_text is running text"):
        causal_lm(text, tiny.CACHE)
    few = chats.model_copy(update={"target_text": lines(Path(str(chats.target_text)), 9)})
    with pytest.raises(ConfigError, match=r"task\.target_text: 9 rows are too few to hold a tenth of them out; 10"):
        causal_lm(few, tiny.CACHE)


def test_cached_files_are_those_of_a_model_that_is_not_the_users_own(chats: CausalLMOptions, tmp_path: Path) -> None:
    folder = tmp_path / "models" / f"{SMOLLM2}-{SMOLLM2_SHA256[:16]}"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (folder / name).touch()
    fetched = chats.model_copy(update={"model": SMOLLM2})
    assert fetched.cached_files(tmp_path) == [folder / "config.json", folder / "model.safetensors"]
    assert chats.cached_files(tmp_path) == []


def test_parts_for_validation_are_the_rows_that_are_given_for_it(chats: CausalLMOptions) -> None:
    train, held_out, validation = (
        tuple(Chat((("user", name), ("assistant", "x"))) for _ in range(3)) for name in "abc"
    )
    split = data.Split("task.target_text", train, held_out, validation)
    asked = chats.model_copy(update={"validation": 2})
    assert data._parts(split, asked) == {"train": train, "held_out": held_out, "validation": validation}
    assert data._parts(split, chats.model_copy(update={"validation": 0})) == {"train": train, "held_out": held_out}
