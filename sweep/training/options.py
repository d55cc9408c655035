"""The options of the optimizer and of the training loop."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from sweep.options import MOST_ROWS, Options

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerOptions(Options):
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


class TrainingOptions(Options):
    """How long and how much. ``steps`` are optimizer updates, each over ``accumulation`` batches.

    ``epochs``, passes over the rows to train on, say how many updates there are in the place of ``steps``; a trial has
    both.

    ``checkpointing`` keeps only the inputs of a transformer's blocks for the backward pass and computes the
    rest again there: less memory, more time, the same bits.

    ``keep: best`` goes back, at the end, to what was trained at the lowest ``eval/loss``, of equal ones the first. Where a
    task has no validation examples it chooses on the test examples, which flatters what is then reported on them.
    """

    unset: ClassVar[dict[str, Any]] = {"keep": "last"}

    steps: int = Field(ge=1)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(ge=1, le=MOST_ROWS)
    accumulation: int = Field(ge=1)
    checkpointing: bool
    log_every: int = Field(ge=1)
    eval_every: int | None = Field(ge=1)
    keep: Literal["last", "best"] = "last"

    @field_validator("keep")
    @classmethod
    def _has_a_choice(cls, value: str, info: ValidationInfo) -> str:
        every, steps, epochs = (info.data.get(name) for name in ("eval_every", "steps", "epochs"))
        if value == "best" and (every is None or (epochs is None and every >= (steps or 0))):
            raise ValueError(f"needs a training.eval_every below training.steps={steps}, to choose from")
        return value
