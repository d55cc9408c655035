"""Rows as tokens, and which of the tokens are to be predicted.

An answer is found by the characters that its tokens stand for, so it does not matter how the tokenizer would cut the
prompt by itself.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sweep.errors import ConfigError
from sweep.models.hugging_face import TEMPLATE
from sweep.tasks.causal_lm.rows import Answer, Chat
from sweep.text import counted

LossOn = Literal["completion", "all"]


class LeftOutError(ValueError):
    """Why a row cannot be learnt from."""


@dataclass(frozen=True)
class Example:
    """The tokens (n,) of a row, and which of them are to be predicted from those before them (n,)."""

    tokens: np.ndarray
    is_target: np.ndarray


@dataclass(frozen=True)
class Examples:
    """The rows that can be learnt from, and their ``numbers`` among all.

    ``rows`` is the count of all, ``cut`` of those that were cut, and ``left_out`` of those left out for each reason.
    """

    examples: tuple[Example, ...]
    numbers: tuple[int, ...]
    rows: int
    cut: int
    left_out: Mapping[str, int]

    def notes(self, key: str) -> tuple[str, ...]:
        """Notes on the rows that were cut or left out."""
        counts = {"cut to task.context tokens": self.cut} | {
            f"left out: {why}": count for why, count in self.left_out.items()
        }
        return tuple(f"{key}: {count} of {self.rows} rows {what}" for what, count in counts.items() if count)


@dataclass(frozen=True)
class _Written:
    """A row as the text that is tokenised, the characters that are to be predicted, and tokens around it."""

    text: str
    spans: tuple[tuple[int, int], ...]
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def tokenise(rows: Sequence[Answer | Chat], tokenizer: Any, context: int, loss_on: LossOn, key: str) -> Examples:
    """The rows in tokens; of those of more than ``context`` tokens the first ones.

    Args:
        rows: all of one kind.
        tokenizer: a fast one; its template writes the chats.
        context: the most tokens of a row.
        loss_on: ``completion`` predicts completions and the assistant's turns, with the token that ends each of them;
            ``all`` predicts every token.
        key: the setting that names the rows, for messages.

    Raises:
        ConfigError: the tokenizer is not a fast one, has no template for chats, or its template refuses a chat; or no
            row has a token to predict.

    """
    if not tokenizer.is_fast:
        raise ConfigError([f"{key}: finding the answers needs a fast tokenizer, in a tokenizer.json beside the model"])
    write = _writer(rows, tokenizer, key)
    left_out: Counter[str] = Counter()
    written = {}
    for number, row in enumerate(rows):
        try:
            written[number] = write(row, number + 1)
        except LeftOutError as reason:
            left_out[str(reason)] += 1
    examples = {}
    cut = 0
    for number, (one, tokens, offsets) in zip(written, _numbered(list(written.values()), tokenizer), strict=True):
        try:
            example = _example(one, tokens, offsets, context, loss_on)
        except LeftOutError as reason:
            left_out[str(reason)] += 1
        else:
            examples[number] = example
            cut += len(example.tokens) < len(one.before) + len(tokens) + len(one.after)
    if not examples:
        reasons = "; ".join(f"{count} have {reason}" for reason, count in left_out.items())
        raise ConfigError(
            [f"{key}: none of {counted(len(rows), 'row')} can be learnt from: {reasons}; task.context = {context}"]
        )
    return Examples(tuple(examples.values()), tuple(examples), len(rows), cut, left_out)


def _numbered(written: Sequence[_Written], tokenizer: Any) -> Iterator[tuple[_Written, list[int], np.ndarray]]:
    """Each row with its tokens and the characters (n, 2) that they stand for."""
    if written:  # the tokenizer fails on none
        texts = [one.text for one in written]
        numbered = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        offsets = (np.array(own).reshape(-1, 2) for own in numbered["offset_mapping"])
        yield from zip(written, numbered["input_ids"], offsets, strict=True)


def _example(one: _Written, tokens: list[int], offsets: np.ndarray, context: int, loss_on: LossOn) -> Example:
    """Raises LeftOutError where a token crosses the beginning of an answer, or nothing to predict is left."""
    inner = _is_in(one, offsets)
    numbers = np.array([*one.before, *tokens, *one.after], dtype=np.int32)
    is_target = np.concatenate([np.zeros(len(one.before), bool), inner, np.ones(len(one.after), bool)])
    if loss_on == "all":
        is_target[:] = True
    is_target[0] = False  # there is nothing before it
    kept = min(len(numbers), context)
    if kept < len(numbers):
        kept = len(one.before) + _whole_characters(offsets, min(kept - len(one.before), len(offsets)))
    if not is_target[:kept].any():
        raise LeftOutError("no token to predict in the first task.context tokens")
    return Example(numbers[:kept], is_target[:kept])


def _is_in(one: _Written, offsets: np.ndarray) -> np.ndarray:
    """Which of the tokens with these first and last characters (n, 2) lie in a span; a space before it may be there."""
    starts, ends = offsets.T
    inside = np.zeros(len(offsets), bool)
    for first, last in one.spans:
        across = (starts < first) & (ends > first)
        if any(not one.text[start:first].isspace() for start in starts[across]):
            raise LeftOutError("a token that belongs to both prompt and answer")
        inside |= (ends > first) & (ends <= last)
    return inside


def _whole_characters(offsets: np.ndarray, kept: int) -> int:
    """At most ``kept`` tokens, so that none of a character's tokens stays without the others."""
    while 0 < kept < len(offsets) and offsets[kept, 0] < offsets[kept - 1, 1]:
        kept -= 1
    return kept


def _writer(rows: Sequence[Answer | Chat], tokenizer: Any, key: str) -> Callable[[Any, int], _Written]:
    """How rows of this kind become text."""
    if isinstance(rows[0], Chat):
        if tokenizer.chat_template is None:
            raise ConfigError(
                [f"{key}: chats need the model's chat template; put it beside its tokenizer.json as {TEMPLATE}"]
            )
        return lambda chat, number: _chat(chat, tokenizer, f"{key}: chat {number}")
    own = tokenizer("")["input_ids"]
    begin = () if tokenizer.bos_token_id is None or own[:1] != [tokenizer.bos_token_id] else (tokenizer.bos_token_id,)
    end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    return lambda answer, _number: _answer(answer, tokenizer, begin, end)


def _answer(row: Answer, tokenizer: Any, begin: tuple[int, ...], end: tuple[int, ...]) -> _Written:
    """Prompt and completion as they are, with the tokenizer's own beginning and end where they are not there yet."""
    text = row.prompt + row.completion
    has_beginning = begin and text.startswith(tokenizer.bos_token)
    has_end = end and text.endswith(tokenizer.eos_token)
    return _Written(text, ((len(row.prompt), len(text)),), () if has_beginning else begin, () if has_end else end)


def _chat(row: Chat, tokenizer: Any, where: str) -> _Written:
    """A chat as the template writes it; each answer reaches from the template's prompt for it to its end token.

    An assistant's turn that begins the chat answers nothing and is no target.
    """
    messages = [{"role": role, "content": content} for role, content in row.messages]
    text = _written(messages, tokenizer, where)
    spans = []
    for number, message in enumerate(messages):
        if message["role"] == "assistant" and number:
            before = _written(messages[:number], tokenizer, where, add_generation_prompt=True)
            up_to = text if number + 1 == len(messages) else _written(messages[: number + 1], tokenizer, where)
            if not (text.startswith(up_to) and up_to.startswith(before)):
                raise LeftOutError("a turn that the chat template writes in another way before the next one")
            end = up_to.rfind(tokenizer.eos_token or "", len(before))
            spans.append((len(before), len(up_to) if end < 0 else end + len(tokenizer.eos_token or "")))
    return _Written(text, tuple(spans))


def _written(messages: list[dict[str, str]], tokenizer: Any, where: str, add_generation_prompt: bool = False) -> str:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise ConfigError([f"{where} is refused by the model's chat template: {error}"]) from None
