"""The linear layers of models: of named ones from the few sizes that define them, of others from their config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sweep.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

Linears = dict[str, tuple[int, int]]
"""(in, out) of linear layers by their dotted names."""

PRESETS = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj", "fc1", "fc2"),
    "qv": ("q_proj", "v_proj"),
}


@dataclass(frozen=True)
class Shape:
    """A model without its weights.

    ``stages`` are its linear layers in the order of computing, those together that read the same input. ``params``
    counts every number once, tied ones too; ``head`` is the output layer, which no preset targets; ``embeds`` says that
    numbers stand before the first linear layer, so that full fine-tuning sends a gradient there.
    """

    name: str
    stages: Sequence[Linears]
    params: int
    head: str | None
    embeds: bool

    @property
    def linears(self) -> Linears:
        """Every linear layer, in the order of computing."""
        return {name: size for stage in self.stages for name, size in stage.items()}

    @property
    def presets(self) -> Mapping[str, tuple[str, ...]]:
        """``all_linear`` (the head aside, as in PEFT), and those others that this model has."""
        suffixes = {name.rpartition(".")[2] for name in self.linears if name != self.head}
        named = {preset: tuple(name for name in names if name in suffixes) for preset, names in PRESETS.items()}
        everything = tuple(name for name in self.linears if name != self.head)
        return {"all_linear": everything} | {preset: names for preset, names in named.items() if names}


class Llama(NamedTuple):
    """Sizes of a decoder with RMSNorm, a gated feed-forward part and no biases; ``kv`` is the width of keys."""

    vocabulary: int
    width: int
    layers: int
    kv: int
    hidden: int
    tied: bool = False

    def shape(self, name: str) -> Shape:
        """Its layers under Hugging Face's names."""
        d, stages = self.width, []
        for index in range(self.layers):
            attention, mlp = f"model.layers.{index}.self_attn", f"model.layers.{index}.mlp"
            stages += [
                {
                    f"{attention}.q_proj": (d, d),
                    f"{attention}.k_proj": (d, self.kv),
                    f"{attention}.v_proj": (d, self.kv),
                },
                {f"{attention}.o_proj": (d, d)},
                {f"{mlp}.gate_proj": (d, self.hidden), f"{mlp}.up_proj": (d, self.hidden)},
                {f"{mlp}.down_proj": (self.hidden, d)},
            ]
        norms = d * (2 * self.layers + 1)
        embeddings = self.vocabulary * d * (1 if self.tied else 2)
        head = {"lm_head": (d, self.vocabulary)}
        return Shape(name, [*stages, head], embeddings + norms + _numbers(stages), "lm_head", embeds=True)


class Gpt(NamedTuple):
    """Sizes of a decoder with biases, learned positions and a tied head, as GPT-3 and OPT.

    ``narrow`` is the width of the embedding where a projection leads from it to the model's; such a model (OPT-350m)
    has its norms after each part, and so no norm at the end.
    """

    vocabulary: int
    width: int
    layers: int
    positions: int
    narrow: int | None = None

    def shape(self, name: str) -> Shape:
        """Its layers under the names that Hugging Face gives those of OPT; the feed-forward part is 4 × the width."""
        d, e = self.width, self.narrow or self.width
        stages = [{"model.decoder.project_in": (e, d)}] if self.narrow else []
        for index in range(self.layers):
            layer = f"model.decoder.layers.{index}"
            stages += [
                {f"{layer}.self_attn.{part}": (d, d) for part in ("q_proj", "k_proj", "v_proj")},
                {f"{layer}.self_attn.out_proj": (d, d)},
                {f"{layer}.fc1": (d, 4 * d)},
                {f"{layer}.fc2": (4 * d, d)},
            ]
        stages += [{"model.decoder.project_out": (d, e)}] if self.narrow else []
        embeddings = self.vocabulary * e + self.positions * d
        biases, norms = 9 * d * self.layers, 2 * d * (2 * self.layers + (0 if self.narrow else 1))
        head = {"lm_head": (e, self.vocabulary)}
        params = embeddings + biases + norms + _numbers(stages)
        return Shape(name, [*stages, head], params, "lm_head", embeds=True)


class Perceptron(NamedTuple):
    """The widths of a multi-layer perceptron."""

    widths: tuple[int, ...]

    def shape(self, name: str) -> Shape:
        """Its layers under our own names."""
        stages = [{f"layers.{index}": widths} for index, widths in enumerate(pairwise(self.widths))]
        return Shape(name, stages, _numbers(stages) + sum(self.widths[1:]), None, embeds=False)


NAMED: dict[str, Llama | Gpt | Perceptron] = {
    "Llama-2-7B": Llama(32_000, 4096, 32, kv=4096, hidden=11_008),
    "Llama-2-13B": Llama(32_000, 5120, 40, kv=5120, hidden=13_824),
    "Llama-2-70B": Llama(32_000, 8192, 80, kv=1024, hidden=28_672),
    "Llama-3.1-8B": Llama(128_256, 4096, 32, kv=1024, hidden=14_336),
    "Llama-3.1-70B": Llama(128_256, 8192, 80, kv=1024, hidden=28_672),
    "Llama-3.2-1B": Llama(128_256, 2048, 16, kv=512, hidden=8192, tied=True),
    "Mistral-7B": Llama(32_000, 4096, 32, kv=1024, hidden=14_336),
    "opt-125m": Gpt(50_272, 768, 12, positions=2050),
    "opt-350m": Gpt(50_272, 1024, 24, positions=2050, narrow=512),
    "opt-1.3b": Gpt(50_272, 2048, 24, positions=2050),
    "opt-6.7b": Gpt(50_272, 4096, 32, positions=2050),
    "GPT-3": Gpt(50_257, 12_288, 96, positions=2048),
    "toy_regression": Perceptron((64, 10)),
    "mnist": Perceptron((784, 1000, 2000, 10)),
    "transformer": Llama(77, 128, 4, kv=128, hidden=344),
    "transformer_tiny": Llama(77, 32, 2, kv=32, hidden=88),
}


def shape_of(model: str) -> Shape:
    """The shape of a named model, or of the one that a Hugging Face ``config.json`` describes.

    Raises ConfigError for a name that is not known, or a config that cannot be read.
    """
    path = Path(model)
    if path.is_dir() or path.suffix == ".json":
        return _of_config(path)
    wanted = model.rpartition("/")[2].lower().removesuffix("-hf")
    for name, sizes in NAMED.items():
        if name.lower() == wanted:
            return sizes.shape(name)
    raise ConfigError(
        [f"--model {model}: must be a folder with a Hugging Face config.json, or one of {', '.join(NAMED)}"]
    )


def _of_config(path: Path) -> Shape:
    file = path / "config.json" if path.is_dir() else path
    if not file.exists():
        raise ConfigError([f"--model {path}: {file} is missing"])
    try:
        from transformers import AutoConfig, AutoModelForCausalLM, logging
    except ImportError:
        raise ConfigError(
            [f"--model {path}: reading a config needs transformers; install it with: pip install 'lora-sweep[hf]'"]
        ) from None
    import torch

    logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(file, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
            stages = _computed(model, torch.zeros(1, 2, dtype=torch.long))
    except (ValueError, KeyError, OSError) as error:
        raise ConfigError([f"--model {path}: {str(error).splitlines()[0]}"]) from None
    except RuntimeError as error:  # a mixture of experts, whose path depends on its weights
        raise ConfigError(
            [f"--model {path}: a {config.model_type} cannot be computed from its shapes alone ({error})"]
        ) from None
    output = model.get_output_embeddings()
    head = next((name for name, module in model.named_modules() if module is output), None)
    params = sum(parameter.numel() for parameter in model.parameters())
    return Shape(path.name or str(path), stages, params, head, embeds=True)


def _computed(model: "nn.Module", tokens: "Tensor") -> list[Linears]:
    """The linear layers that ``model`` computes on ``tokens``, those together that are called with the same tensor."""
    from torch import nn

    stages: list[Linears] = []
    inputs: list[Tensor] = []

    def note(name: str, size: tuple[int, int], given: "Tensor") -> None:
        if not inputs or given is not inputs[-1]:
            inputs.append(given)
            stages.append({})
        stages[-1][name] = size

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            size = (module.in_features, module.out_features)
        elif type(module).__name__ == "Conv1D":  # GPT-2's own linear layer, transposed
            size = (module.weight.shape[0], module.weight.shape[1])
        else:
            continue
        module.register_forward_pre_hook(lambda _, given, name=name, size=size: note(name, size, given[0]))
    model(tokens)
    return stages


def _numbers(stages: Sequence[Linears]) -> int:
    return sum(i * o for stage in stages for i, o in stage.values())
