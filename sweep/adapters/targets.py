"""Which layers a trial adapts: presets, lists of names, regular expressions and layer indices."""

import re
from collections.abc import Mapping, Sequence

from sweep.schema import Adapter, ConfigError

Presets = Mapping[str, Sequence[str]]


def select(adapter: Adapter, layers: Sequence[str], presets: Presets) -> list[str]:
    """Names of the linear layers that ``adapter`` targets, in the model's order.

    Args:
        adapter: a LoRA; a string in ``targets`` is a preset or else a regular expression that matches the
            full layer name, a list holds names or their last parts (``q_proj``), as in PEFT. ``adapter.layers``
            keeps the layers whose first number in the dotted name is listed.
        layers: the dotted names of every linear layer of the model.
        presets: what each preset means in this model, as last parts of names or full names.

    Raises:
        ConfigError: nothing matches, a listed name matches nothing, or the expression is not valid.

    """
    targets = adapter.targets
    assert targets is not None
    chosen = _by_expression(targets, layers, presets) if isinstance(targets, str) else _by_name(targets, layers)
    if adapter.layers is not None:
        indices = {_index(name) for name in chosen}
        if unknown := sorted(set(adapter.layers) - indices):
            known = ", ".join(str(index) for index in sorted(i for i in indices if i is not None))
            raise ConfigError([f"adapter.layers = {list(adapter.layers)}: no targeted layer has index {unknown[0]}; there are {known}"])  # fmt: skip
        chosen = [name for name in chosen if _index(name) in adapter.layers]
    return chosen


def _by_expression(targets: str, layers: Sequence[str], presets: Presets) -> list[str]:
    if targets in presets:
        return _by_name(presets[targets], layers)
    try:
        expression = re.compile(targets)
    except re.error as error:
        raise ConfigError([f"adapter.targets = {targets!r}: not a valid regular expression ({error})"]) from None
    if chosen := [name for name in layers if expression.fullmatch(name)]:
        return chosen
    raise ConfigError([f"adapter.targets = {targets!r}: matches no layer; {_allowed(layers, presets)}"])


def _by_name(names: Sequence[str], layers: Sequence[str]) -> list[str]:
    unmatched = [name for name in names if not any(_is_called(layer, name) for layer in layers)]
    if unmatched or not names:
        what = f"{unmatched[0]!r} matches no layer" if unmatched else "an empty list"
        raise ConfigError([f"adapter.targets = {list(names)}: {what}; {_allowed(layers, {})}"])
    return [layer for layer in layers if any(_is_called(layer, name) for name in names)]


def _is_called(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def _index(layer: str) -> int | None:
    return next((int(part) for part in layer.split(".") if part.isdigit()), None)


def _allowed(layers: Sequence[str], presets: Presets) -> str:
    kinds = list(dict.fromkeys(layer if layer.split(".")[-1].isdigit() else layer.split(".")[-1] for layer in layers))
    listed = f"this model's layers are {', '.join(kinds)}"
    return f"{listed}; its presets are {', '.join(presets)}" if presets else listed
