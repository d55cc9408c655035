"""From PEFT: a LoraConfig as an adapter of ours, and a saved adapter as the start of a trial."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from sweep.adapters.fold import Folded, fold_lora, views
from sweep.adapters.options import AdapterOptions
from sweep.adapters.peft.export import CONFIG_FILE, WEIGHTS_FILE, key_of, targets_of, transposed_in_files
from sweep.adapters.rank import widest
from sweep.errors import ConfigError
from sweep.files import open_foreign, read_foreign
from sweep.models.model import Model
from sweep.registry import INITS

RENAMED = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "bias": "bias",
    "exclude_modules": "exclude",
    "modules_to_save": "save",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
}
DEFAULTS: dict[str, Any] = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none", "init_lora_weights": True}
PEFT_INITS: dict[Any, str] = {
    True: "kaiming",
    "gaussian": "gaussian",
    "orthogonal": "orthogonal",
    "pissa": "pissa",
    "olora": "olora",
    "mica": "mica",
}
"""PEFT's value of ``init_lora_weights`` for those of our initialisations that PEFT has."""
OTHERS_THAT_MOVE_THE_BASE = ("corda", "loftq", "lora_ga")
"""PEFT's initialisations that rewrite the base and that we do not have; its ``lora_ga`` is not ours."""
LARGEST_CONFIG = 2**20
"""Largest adapter_config.json, in bytes."""
LARGEST_WEIGHTS = 2**34
"""Largest weights of an adapter, in bytes."""
LARGEST_NUMBER = 10**9
FLOATING = ("F64", "F32", "F16", "BF16")
NUMBERS = ("r", "lora_alpha", "lora_dropout")
LISTS = {"target_modules": str, "exclude_modules": str, "modules_to_save": str, "layers_to_transform": int}
MAPPINGS = ("rank_pattern", "alpha_pattern")
TRANSLATED = {
    *RENAMED,
    "peft_type",
    "target_modules",
    "layers_to_transform",
    "use_dora",
    "use_rslora",
    "init_lora_weights",
}
NOT_OF_TRAINING = {
    "auto_mapping",
    "base_model_name_or_path",
    "fan_in_fan_out",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}
"""Fields that say where an adapter comes from, or that qualify a field which is refused anyway."""


def from_peft(config: Any) -> AdapterOptions:
    """The adapter that a ``peft.LoraConfig``, or the mapping in its ``adapter_config.json``, describes.

    Raises ConfigError that names every unsupported field at once.
    """
    values = DEFAULTS | dict(config if isinstance(config, Mapping) else config.to_dict())
    if wrong := [field for field in values if not _has_right_type(field, values[field])]:
        raise ConfigError(
            [f"{field} = {_plain(values[field])!r}: is of the wrong type or too large" for field in wrong]
        )
    known = TRANSLATED | NOT_OF_TRAINING
    faults = [
        f"{field} = {_plain(value)!r}: is not supported"
        for field, value in values.items()
        if field not in known and value
    ]
    targets, layers = values.get("target_modules"), values.get("layers_to_transform")
    init = values["init_lora_weights"]
    if values.get("peft_type", "LORA") != "LORA":
        faults.append(f"peft_type = {_plain(values['peft_type'])!r}: must be LORA")
    if not targets:
        faults.append(
            f"target_modules = {_plain(targets)!r}: must name the layers; PEFT's defaults for each kind of model are "
            "not known here"
        )
    if init not in PEFT_INITS:
        faults.append(f"init_lora_weights = {init!r}: must be one of {', '.join(map(str, PEFT_INITS))}")
    if faults:
        raise ConfigError(faults)
    adapter = {ours: values.get(theirs) for theirs, ours in RENAMED.items()}
    adapter |= {
        "kind": "lora",
        "alpha": float(values["lora_alpha"]),
        "dropout": float(values["lora_dropout"]),
        "exclude": _names(values.get("exclude_modules")) or None,
        "save": _names(values.get("modules_to_save")) or None,
        "targets": "all_linear" if str(targets).lower() == "all-linear" else _names(targets),
        "layers": ([layers] if isinstance(layers, int) else layers) or None,
        "scaling": "alpha/sqrt_rank" if values.get("use_rslora") else "alpha/rank",
        "init": PEFT_INITS[init],
        "dora": bool(values.get("use_dora")),
    }
    try:
        return AdapterOptions.model_validate(adapter)
    except ValidationError as error:
        theirs = {ours: name for name, ours in RENAMED.items()}
        own = [(str(fault["loc"][0]), fault["msg"]) for fault in error.errors()]
        raise ConfigError([f"{theirs.get(key, key)}: {message}" for key, message in own]) from None


def resolved(adapter: AdapterOptions) -> AdapterOptions:
    """``adapter`` with everything that the file or folder in ``adapter.peft`` says.

    A file means what the same settings would mean, and leaves no trace; for a folder, ``peft`` becomes the hash
    of the weights, and there is no ``init``. Raises ConfigError for what cannot be read or is not supported.
    """
    if adapter.peft is None:
        return adapter
    path = Path(adapter.peft)
    file = path / CONFIG_FILE if path.is_dir() else path
    try:
        values = _fields(file)
        if not path.is_dir():
            return from_peft(values)
        weights = _hash_of_weights(path / WEIGHTS_FILE["lora"])
        started = from_peft(_without_init(values))
    except OSError as error:
        said = (
            f"{Path(error.filename).name}: {error.strerror}; give an adapter_config.json, or a folder with that and "
            f"{WEIGHTS_FILE['lora']}"
        )
        raise ConfigError([f"adapter.peft = {adapter.peft!r}: {said}"]) from None
    except ConfigError as error:
        raise ConfigError([f"adapter.peft = {adapter.peft!r}: {fault}" for fault in error.faults]) from None
    except ValueError as error:
        said = f"{file.name} is not the JSON of a LoraConfig ({error})"
        raise ConfigError([f"adapter.peft = {adapter.peft!r}: {said}"]) from None
    return started.model_copy(update={"peft": weights, "init": None})


def check_start(
    folder: Path, adapter: AdapterOptions, base: Model, targets: Sequence[str], saved: Sequence[str] = ()
) -> None:
    """Compare the tensors in ``folder`` with those that ``adapter`` has on ``base``, which may be on the meta device.

    Raises ConfigError when any is missing, unknown or of another shape; only the header of the file, which ``resolved``
    has found whole, is read.
    """
    own = views(fold_lora(base, [adapter], [targets], [0], widest(adapter), saved=saved), trial=0)
    transposed = transposed_in_files(base)
    expected = {
        key_of(name, targets): tuple(tensor.T.shape if name in transposed else tensor.shape)
        for name, tensor in own.items()
    }
    with safe_open(folder / WEIGHTS_FILE["lora"], framework="pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    faults = [f"{key} is missing" for key in expected.keys() - shapes.keys()]
    faults += [f"{key} belongs to no adapted layer" for key in shapes.keys() - expected.keys()]
    faults += [
        f"{key} is {shapes[key]}, not {expected[key]}"
        for key in expected.keys() & shapes.keys()
        if shapes[key] != expected[key]
    ]
    if faults:
        more = f" and {len(faults) - 3} others" if len(faults) > 3 else ""
        differs = "; ".join(sorted(faults)[:3]) + more
        raise ConfigError([f"adapter.peft = {str(folder)!r}: was not made for this model: {differs}"])


def start(folded: Folded, trial: int, folder: Path) -> None:
    """Put the tensors in ``folder`` into one trial of ``folded``, in place."""
    tensors = load((folder / WEIGHTS_FILE["lora"]).read_bytes())
    targets, transposed = targets_of(folded, trial), transposed_in_files(folded.model)
    for name, numbers in views(folded, trial).items():
        tensor = tensors[key_of(name, targets)]
        numbers.copy_(tensor.T if name in transposed else tensor)


def restore_whole(folded: Folded, folder: Path) -> None:
    """Put the whole weights in ``folder``, which a full fine-tuning has left there, into its only trial, in place.

    Raises ConfigError for a file that is damaged or of another model.
    """
    transposed = transposed_in_files(folded.model)
    try:
        tensors = load(read_foreign(folder / WEIGHTS_FILE["full"], LARGEST_WEIGHTS))
        for name, numbers in views(folded, 0).items():
            numbers.copy_(tensors[name].T if name in transposed else tensors[name])
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ConfigError([f"{folder / WEIGHTS_FILE['full']}: was not left by this trial ({error})"]) from None


def _fields(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_foreign(file, LARGEST_CONFIG))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it holds no fields")
    return values


def _has_right_type(field: str, value: Any) -> bool:
    if field in NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER
    if field == "init_lora_weights":
        return isinstance(value, bool | str)
    if field in MAPPINGS:
        return isinstance(value, dict | None)
    if field in LISTS and isinstance(value, list | tuple | set):
        return all(isinstance(item, LISTS[field]) for item in value)
    return field not in LISTS or isinstance(value, LISTS[field] | None)


def _hash_of_weights(file: Path) -> str:
    """The start of the SHA-256 of a file of weights. Raises ConfigError for one that is damaged, OSError for no file."""
    with open_foreign(file, LARGEST_WEIGHTS) as content:
        try:
            with safe_open(file, framework="pt") as tensors:
                types = {key: tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ConfigError([f"{file.name} is damaged ({error})"]) from None
        if wrong := [f"{key} is of type {kind}" for key, kind in sorted(types.items()) if kind not in FLOATING]:
            raise ConfigError([f"{file.name}: {wrong[0]}, not of floating-point numbers"])
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def _without_init(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a trained adapter without its initialisation, which no longer matters.

    Raises ConfigError where it does: the base has changed, or B is frozen.
    """
    init = values.get("init_lora_weights", True)
    if isinstance(init, str) and not _leaves_a_plain_lora(init):
        raise ConfigError(
            [
                f"init_lora_weights = {init!r}: no trial can start from these weights, since the initialisation has "
                "changed the base or freezes B; save them as a plain LoRA, where PEFT can with "
                "path_initial_model_for_weight_conversion"
            ]
        )
    return values | {"init_lora_weights": True}


def _leaves_a_plain_lora(init: str) -> bool:
    """Whether an adapter that PEFT started with ``init`` is a LoRA on the untouched base, with both factors trained.

    Settings may follow its name, as in ``pissa_niter_4``.
    """
    if init.startswith(OTHERS_THAT_MOVE_THE_BASE):
        return False
    names = (ours for theirs, ours in PEFT_INITS.items() if isinstance(theirs, str) and init.startswith(theirs))
    return all(ours.trains_B and not ours.moves_base for ours in map(INITS.load, names))


def _names(value: Any) -> Any:
    """An expression unchanged; names, which PEFT keeps as a set, in alphabetical order."""
    return value if isinstance(value, str) or value is None else sorted(value)


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
