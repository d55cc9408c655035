"""What the names of a run's folders say of its settings: ``r8-seed0``, ``rank=8,seed=0``, ``lr_1e-3/seed_0``."""

import re

ASSIGNED = re.compile(r"([A-Za-z][\w.]*)=([^,=]+)")
SEPARATOR = re.compile(r"(?<!\de)[-_]+")
"""A dash or an underscore, but for the sign of an exponent."""
NUMBERED = re.compile(r"([A-Za-z]+)(\d+(?:\.\d+)?(?:e-?\d+)?)")


def settings_in(path: str) -> dict[str, str | int | float]:
    """The settings that a path with ``/`` between its folders names, such as ``{"r": 8, "seed": 0}``."""
    found: dict[str, str | int | float] = {}
    for folder in path.split("/"):
        if "=" in folder:
            found |= {name: _value(text) for name, text in ASSIGNED.findall(folder)}
            continue
        words = SEPARATOR.split(folder)
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if pair := NUMBERED.fullmatch(word):
                found[pair[1]] = _value(pair[2])
            elif word.isalpha() and isinstance(_value(following), int | float):
                found[word] = _value(following)
    return found


def _value(text: str) -> str | int | float:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
