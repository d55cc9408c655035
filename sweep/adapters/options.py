"""The options of what is trained: a LoRA, every weight, or nothing."""

import json
import re
from collections.abc import Hashable
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from sweep.options import Names, Options, WholeNumbers
from sweep.registry import INITS

Kind = Literal["lora", "full", "none"]
Scaling = Literal["alpha/rank", "alpha/sqrt_rank", "alpha"]
Bias = Literal["none", "all", "lora_only"]


class AdapterOptions(Options):
    """What is trained: a LoRA (``kind: lora``), every weight (``full``), or nothing (``none``).

    ``dora`` trains the length of each output row separately (DoRA; Liu et al. 2024).
    ``targets`` is a preset (``all_linear``, ``attention``, ``mlp``, ``qv``), a list of layer names, or a
    regular expression on the full layer name; ``layers`` keeps only those indices, and ``exclude`` (names or an
    expression) leaves layers out. The modules named in ``save`` are trained in full alongside the LoRA. ``rank_pattern``
    and ``alpha_pattern`` give layers a rank and alpha of their own: the first name or expression that matches the end
    of a layer's name, from a dot on, counts. The LoRA settings have no meaning for ``full`` and ``none`` and are
    dropped there, so a grid does not repeat those baselines.

    ``peft`` is PEFT's ``adapter_config.json``, which then says all of this, or a folder with one and the weights
    that the trial starts from.
    """

    kind: Kind
    peft: str | None = None
    rank: int | None = Field(default=None, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    init: str | None = None
    dora: bool = False
    targets: str | Names | None = None
    layers: WholeNumbers | None = None
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

    @field_validator("init", mode="before")
    @classmethod
    def _known_init(cls, value: Any) -> Any:
        if value is not None and value not in INITS.names:
            *names, last = (INITS.shown(name, quoted=True) for name in INITS.names)
            raise ValueError(f"must be {', '.join(names)} or {last}")
        if value is not None and (conflict := INITS.conflict(value)):
            raise ValueError(conflict)
        return value

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
        """One value that keeps the order, reads well as a level, and is what one would write on the command line.

        Unequal patterns have unequal texts, since a trial's identity is made of them.
        """
        texts = [f"{_quoted(name)}: {_exact(value)}" for name, value in (pattern or {}).items()]
        return f"{{{', '.join(texts)}}}" if texts else None

    @model_validator(mode="after")
    def _complete(self) -> "AdapterOptions":
        if self.peft is not None:
            settings = type(self).model_fields.items()
            if own := [
                name
                for name, field in settings
                if name not in ("kind", "peft") and getattr(self, name) != field.default
            ]:
                raise ValueError(
                    f"what peft={self.peft} says cannot be changed here; use adapter=peft, and leave out "
                    f"{', '.join(own)}"
                )
        elif self.kind == "lora":
            fields = ("rank", "alpha", "init", "targets", "scaling", "dropout", "bias")
            if missing := [name for name in fields if getattr(self, name) is None]:
                raise ValueError(f"a LoRA needs a value for {', '.join(missing)}")
        return self

    @property
    def runs_alone(self) -> bool:
        """Whether a trial trains alone: it trains whole weights, which are not shared."""
        return self.kind == "full" or bool(self.save)

    @property
    def arithmetic(self) -> tuple[Hashable, ...]:
        """What decides, beside the padded rank, which arithmetic a layer does; LoRAs that differ in it share no pack."""
        return self.dora, self.bias, bool(self.dropout), self.save


def _exact(value: float) -> str:
    """``value`` in six digits, or in as many as it takes to be exact."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _quoted(name: str) -> str:
    """``name``, in quotation marks where it could be taken for several entries of a pattern."""
    return json.dumps(name) if ": " in name or ", " in name or name.startswith('"') else name
