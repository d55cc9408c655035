"""What planning needs of a Hugging Face model, cached: importing transformers takes longer than everything else."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from sweep.files import replace_file
from sweep.models import hugging_face
from sweep.models.folder import sha256_of_files
from sweep.models.hugging_face import CONFIG_FILE, TEMPLATE, TOKENIZER, FromConv1D
from sweep.models.model import Model, check_rows_are_independent

FORMAT = 1
LINEAR = {kind.__name__: kind for kind in (nn.Linear, FromConv1D)}


@dataclass(frozen=True)
class Module:
    """A module by its dotted name, with its own parameters: the number of each in the model, and its shape.

    ``kind`` is the class of a linear layer, and empty for any other module.
    """

    name: str
    kind: str
    parameters: dict[str, tuple[int, tuple[int, ...]]]


@dataclass(frozen=True)
class Outline:
    """A model without its numbers.

    ``vocabulary`` and ``longest`` count the tokens that it knows and the most that it reads, None where it does not
    say; ``dropouts`` are the rates that were set to 0, ``template`` is its tokenizer's chat template.
    """

    vocabulary: int
    longest: int | None
    dropouts: tuple[str, ...]
    template: str | None
    presets: dict[str, tuple[str, ...]]
    modules: tuple[Module, ...]

    def model(self) -> Model:
        """The modules with their parameters on the meta device. It computes nothing."""
        shared: dict[int, nn.Parameter] = {}
        root = Model()
        root.presets, root.stages = self.presets, ("",)
        for module in self.modules:
            built = _linear(module) if module.kind else nn.Module() if module.name else root
            for name, (number, shape) in module.parameters.items():
                tensor = shared.setdefault(number, nn.Parameter(torch.empty(shape, device="meta")))
                built.register_parameter(name, tensor)
            if module.name:
                parent, _, own = module.name.rpartition(".")
                root.get_submodule(parent).add_module(own, built)
        return root


@cache
def outline_of(folder: Path, cache_folder: Path) -> Outline:
    """The outline of the model in ``folder``. Raises ConfigError for a model or a tokenizer that cannot be used."""
    files = sha256_of_files(folder, (CONFIG_FILE, *TOKENIZER, TEMPLATE))
    key = f"{FORMAT} {files} {hugging_face.transformers_version()}"
    path = cache_folder / "outlines" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            replace_file(path, json.dumps(asdict(_drawn(folder))).encode())
    values = json.loads(path.read_text(encoding="utf-8"))
    return Outline(**values | {"modules": tuple(Module(**module) for module in values["modules"])})


def _drawn(folder: Path) -> Outline:
    config, dropouts = hugging_face.configuration(folder)
    with torch.device("meta"):
        model = hugging_face.skeleton(folder)
    check_rows_are_independent(model)
    return Outline(
        config.vocab_size,
        getattr(config, "max_position_embeddings", None),
        dropouts,
        hugging_face.tokenizer_of(folder).chat_template,
        {preset: tuple(names) for preset, names in model.presets.items()},
        tuple(_modules(model)),
    )


def _modules(model: nn.Module) -> list[Module]:
    numbers: dict[nn.Parameter, int] = {}
    return [
        Module(
            name,
            next((kind for kind in LINEAR if type(module).__name__ == kind), ""),
            {
                own: (numbers.setdefault(parameter, len(numbers)), tuple(parameter.shape))
                for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
            },
        )
        for name, module in model.named_modules()
    ]


def _linear(module: Module) -> nn.Linear:
    _, (out_features, in_features) = module.parameters["weight"]
    return LINEAR[module.kind](in_features, out_features, "bias" in module.parameters, device="meta")
