"""Which tokens are to be predicted: the mistakes that trainers of language models are known for, one test each."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sweep.errors import ConfigError
from sweep.tasks.causal_lm.rows import Answer, Chat
from sweep.tasks.causal_lm.targets import Example, LossOn, tokenise
from tests.support import hugging_face as tiny


def tokenizer(template: str | None = tiny.TEMPLATE) -> Any:
    tokenizer = tiny.new_tokenizer()
    tokenizer.chat_template, tokenizer.pad_token = template, "<end>"
    return tokenizer


def chat(*turns: str) -> Chat:
    """A chat in which user and assistant take turns."""
    roles = ("user", "assistant") * len(turns)
    return Chat(tuple(zip(roles[: len(turns)], turns, strict=True)))


def one(row: Answer | Chat, context: int = 200, loss_on: LossOn = "completion", reader: Any = None) -> Example:
    [example] = tokenise([row], reader or tokenizer(), context, loss_on, "task.target_text").examples
    return example


def targets(example: Example) -> str:
    return tokenizer().decode(example.tokens[example.is_target])


def test_targets_are_the_answer_and_the_token_that_ends_it() -> None:
    example = one(chat("Who made the earth?", "God made it."))
    assert tokenizer().decode(example.tokens) == "user: Who made the earth?<end>\nassistant: God made it.<end>\n"
    assert targets(example) == "God made it.<end>"


def test_targets_hold_an_end_token_that_is_also_the_padding_token() -> None:
    reader = tokenizer()
    assert reader.pad_token_id == reader.eos_token_id == 0
    for row in (chat("Who?", "God."), Answer("Who? ", "God.")):
        example = one(row, reader=reader)
        assert example.tokens[example.is_target][-1] == 0


def test_targets_of_several_turns_are_all_answers() -> None:
    assert targets(one(chat("Who?", "God.", "When?", "At first."))) == "God.<end>At first.<end>"


def test_turn_that_begins_a_chat_answers_nothing_and_is_no_target() -> None:
    opening = Chat((("assistant", "Hello."), ("user", "Who?"), ("assistant", "God.")))
    assert targets(one(opening)) == "God.<end>"


def test_targets_of_all_are_every_token_but_the_first() -> None:
    example = one(chat("Who?", "God."), loss_on="all")
    assert example.is_target.tolist() == [False] + [True] * (len(example.tokens) - 1)


@pytest.mark.parametrize("text", ["{bos}Who?", "Who?"])
def test_beginning_token_is_there_once(text: str) -> None:
    from tokenizers.processors import TemplateProcessing

    reader = tokenizer("{{ bos_token }}" + tiny.TEMPLATE)
    reader.bos_token = "<end>"
    reader.backend_tokenizer.post_processor = TemplateProcessing(single="<end> $A", special_tokens=[("<end>", 0)])
    answer = Answer(text.replace("{bos}", "<end>"), " God.")
    for row in (answer, chat("Who?", "God.")):
        tokens = one(row, reader=reader).tokens
        assert tokens[0] == 0
        assert tokens[1] != 0


def test_end_token_is_not_added_twice() -> None:
    tokens = one(Answer("Who?", " God.<end>")).tokens.tolist()
    assert tokens == one(Answer("Who?", " God.")).tokens.tolist()
    assert tokens.count(0) == 1


def test_prompt_whose_tokens_are_another_beginning_is_left_out_and_counted() -> None:
    reader = tokenizer()
    whole, own = reader("the heavens")["input_ids"], reader("the heav")["input_ids"]
    assert whole[: len(own)] != own
    rows = [Answer("the heav", "ens"), Answer("the heavens", " were good")]
    found = tokenise(rows, reader, 200, "completion", "task.target_text")
    assert [targets(example) for example in found.examples] == [" were good<end>"]
    assert found.notes("task.target_text") == (
        "task.target_text: 1 of 2 rows left out: a token that belongs to both prompt and answer",
    )


def test_completion_of_a_prompt_that_ends_in_a_space_is_found() -> None:
    reader = tokenizer()
    assert len(reader(" the")["input_ids"]) == 1
    assert targets(one(Answer("Who? ", "the Lord."))) == " the Lord.<end>"


def test_rows_without_a_target_after_cutting_are_left_out_and_counted() -> None:
    rows = [Answer("God" * 40, " made"), Answer("God", " made it, and it was good, and it was so, and it was done")]
    found = tokenise(rows, tokenizer(), 12, "completion", "task.target_text")
    [example] = found.examples
    assert len(example.tokens) == 12
    assert (found.rows, found.cut) == (2, 1)
    assert found.notes("task.target_text") == (
        "task.target_text: 1 of 2 rows cut to task.context tokens",
        "task.target_text: 1 of 2 rows left out: no token to predict in the first task.context tokens",
    )


def test_targets_of_no_row_are_an_error() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^task\.target_text: none of 2 rows can be learnt from: 2 have no token to predict in the first task\.context tokens; task\.context = 12$",
    ):
        tokenise([Answer("God" * 40, " made")] * 2, tokenizer(), 12, "completion", "task.target_text")


def test_character_of_several_tokens_is_kept_or_cut_as_a_whole() -> None:
    reader, row = tokenizer(), Answer("a", "bc " + "ȝ" * 10)
    assert len(reader("ȝ")["input_ids"]) == 2
    for context in range(6, 20):
        text = reader.decode(one(row, context, reader=reader).tokens)
        assert "\N{REPLACEMENT CHARACTER}" not in text
        assert text.startswith("abc ȝ")


def test_turn_that_the_template_writes_in_another_way_later_is_left_out() -> None:
    forgetful = tiny.TEMPLATE.replace(
        "message['content']", "(message['content'] if message['role'] == 'user' or loop.last else '...')"
    )
    rows = [chat("Who?", "God.", "When?", "At first."), chat("Who?", "God.")]
    found = tokenise(rows, tokenizer(forgetful), 200, "completion", "task.target_text")
    assert found.left_out == {"a turn that the chat template writes in another way before the next one": 1}


def test_chat_without_a_template_says_which_file_to_give() -> None:
    with pytest.raises(
        ConfigError,
        match=r"chats need the model's chat template; put it beside its tokenizer\.json as chat_template\.jinja",
    ):
        one(chat("Who?", "God."), reader=tokenizer(None))


def test_chat_that_the_template_refuses_is_named() -> None:
    strict = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ConfigError, match=r"task\.target_text: chat 1 is refused by the model's chat template: roles"):
        one(chat("Who?", "God."), reader=tokenizer(strict))


def test_example_is_small() -> None:
    assert one(chat("Who?", "God.")).tokens.dtype == np.int32


def test_tokenise_needs_a_fast_tokenizer() -> None:
    slow = SimpleNamespace(is_fast=False)
    with pytest.raises(ConfigError, match=r"task\.target_text: finding the answers needs a fast tokenizer"):
        tokenise([chat("Who?", "God.")], slow, 200, "completion", "task.target_text")


def test_tokenise_says_why_no_chat_can_be_learnt_from() -> None:
    counting = "{{ messages|length }}{% for one in messages %}{{ one.content }}{% endfor %}"
    says = "none of 1 row can be learnt from: 1 have a turn that the chat template writes in another way"
    with pytest.raises(ConfigError, match=says):
        tokenise([chat("Who?", "God.")], tokenizer(counting), 200, "completion", "task.target_text")
