"""Which layers a trial adapts: presets, names, regular expressions, layer indices, and exclusions."""

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sweep.adapters.options import AdapterOptions
from sweep.adapters.rank import matches
from sweep.errors import ConfigError

MATCHING_S = 2
"""Processor seconds to match an expression with all layer names: nested repetition can take years."""

Presets = Mapping[str, Sequence[str]]
_KIND = {"targets": "this model's layers", "exclude": "the targeted layers", "save": "this model's modules"}


def select(adapter: AdapterOptions, layers: Sequence[str], presets: Presets) -> list[str]:
    """Names of the linear layers that ``adapter`` targets, in the model's order.

    Args:
        adapter: a LoRA; a string in ``targets`` is a preset or else a regular expression that matches the
            full layer name, a list holds names or their last parts (``q_proj``), as in PEFT. ``adapter.layers``
            keeps the layers whose first number in the dotted name is listed. ``adapter.exclude`` takes out what
            its names or its expression match, and ``adapter.save`` what is trained in full.
        layers: the dotted names of every linear layer of the model.
        presets: what each preset means in this model, as last parts of names or full names.

    Raises:
        ConfigError: nothing matches or is left, a name or a pattern matches nothing, or an expression is not valid.

    """
    assert adapter.targets is not None
    chosen = _matching("targets", adapter.targets, layers, presets)
    if adapter.layers is not None:
        indices = {_index(name) for name in chosen}
        if unknown := sorted(set(adapter.layers) - indices):
            known = ", ".join(str(index) for index in sorted(i for i in indices if i is not None))
            said = f"no targeted layer has index {unknown[0]}; there are {known}"
            raise ConfigError([f"adapter.layers = {list(adapter.layers)}: {said}"])
        chosen = [name for name in chosen if _index(name) in adapter.layers]
    if adapter.exclude is not None:
        left_out = _matching("exclude", adapter.exclude, chosen, {})
        chosen = [name for name in chosen if name not in left_out]
    if adapter.save:
        saved = adapter.save
        chosen = [name for name in chosen if not any(_is_called(part, own) for own in saved for part in _nesting(name))]
    if not chosen:
        key, value = ("save", adapter.save) if adapter.save else ("exclude", adapter.exclude)
        shown = value if isinstance(value, str) else list(value or ())
        raise ConfigError([f"adapter.{key} = {shown!r}: leaves no layer to adapt"])
    for key, pattern in (("rank_pattern", adapter.rank_pattern), ("alpha_pattern", adapter.alpha_pattern)):
        for expression in pattern or ():
            with _in_time(key, expression):
                fitting = [name for name in chosen if matches(expression, name)]
            if not fitting:
                allowed = _allowed(chosen, {}, "the targeted layers")
                raise ConfigError([f"adapter.{key} = {pattern}: {expression!r} matches no layer; {allowed}"])
    return chosen


def select_saved(adapter: AdapterOptions, modules: Sequence[str]) -> list[str]:
    """Names of the modules that ``adapter`` trains in full; where they are nested, the outermost.

    Args:
        adapter: a LoRA; ``adapter.save`` holds names or their last parts.
        modules: the dotted names of every module that has parameters.

    Raises:
        ConfigError: a name matches no module.

    """
    chosen = _by_name("save", adapter.save, modules) if adapter.save else []
    return [name for name in chosen if not set(_nesting(name)[:-1]) & set(chosen)]


def _nesting(name: str) -> list[str]:
    """``a.b.c`` is in ``a``, ``a.b`` and ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _matching(key: str, wanted: str | Sequence[str], layers: Sequence[str], presets: Presets) -> list[str]:
    """The layers that ``adapter.key`` names, by a preset, an expression on the full name, or a list of names."""
    if not isinstance(wanted, str):
        return _by_name(key, wanted, layers)
    if wanted in presets:
        return _by_name(key, presets[wanted], layers)
    try:
        expression = re.compile(wanted)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError([f"adapter.{key} = {wanted!r}: not a valid regular expression ({error})"]) from None
    with _in_time(key, wanted):
        chosen = [name for name in layers if expression.fullmatch(name)]
    if chosen:
        return chosen
    raise ConfigError([f"adapter.{key} = {wanted!r}: matches no layer; {_allowed(layers, presets, _KIND[key])}"])


@contextmanager
def _in_time(key: str, expression: str) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise ConfigError(
            [
                f"adapter.{key} = {expression!r}: takes longer than {MATCHING_S} s to match the names of the layers; "
                "write it without a repetition inside a repetition"
            ]
        )

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MATCHING_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _by_name(key: str, names: Sequence[str], layers: Sequence[str]) -> list[str]:
    unmatched = [name for name in names if not any(_is_called(layer, name) for layer in layers)]
    if unmatched or not names:
        what = f"{unmatched[0]!r} matches no layer" if unmatched else "an empty list"
        raise ConfigError([f"adapter.{key} = {list(names)}: {what}; {_allowed(layers, {}, _KIND[key])}"])
    return [layer for layer in layers if any(_is_called(layer, name) for name in names)]


def _is_called(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def _index(layer: str) -> int | None:
    return next((int(part) for part in layer.split(".") if part.isdigit()), None)


def _allowed(layers: Sequence[str], presets: Presets, kind: str) -> str:
    kinds = list(dict.fromkeys(layer if layer.split(".")[-1].isdigit() else layer.split(".")[-1] for layer in layers))
    listed = f"{kind} are {', '.join(kinds)}"
    return f"{listed}; its presets are {', '.join(presets)}" if presets else listed
