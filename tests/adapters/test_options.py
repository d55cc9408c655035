"""The options of an adapter as the texts that identify a trial."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweep.adapters.options import AdapterOptions
from tests.support.builders import lora

NAMES = st.text("ab.: ,\"'|{}", min_size=1, max_size=8)
PATTERNS = st.none() | st.dictionaries(
    NAMES, st.floats(min_value=1e-300, allow_infinity=False) | st.sampled_from([1.0, 4.0]), max_size=3
)


def text(**changes: Any) -> Any:
    return lora(**changes).model_dump(mode="json")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"layers.0": 2.0}, "{layers.0: 2}"),
        ({"q_proj": 0.125, ".*": 1e6}, "{q_proj: 0.125, .*: 1e+06}"),
        ({"a{1,2}": 32.0}, "{a{1,2}: 32}"),
        ({"layers.0": 1.23456789}, "{layers.0: 1.23456789}"),
        ({"x|a: 4, b": 8.0}, '{"x|a: 4, b": 8}'),
        ({}, None),
    ],
)
def test_options_write_a_pattern_as_one_text(pattern: dict[str, float], expected: str | None) -> None:
    assert text(alpha_pattern=pattern)["alpha_pattern"] == expected


def test_options_write_ranks_exactly() -> None:
    assert text(rank_pattern={"a": 1234567})["rank_pattern"] == "{a: 1234567}"


def test_options_tell_apart_patterns_that_agree_in_six_digits() -> None:
    first, second = (text(alpha_pattern={"layers.0": alpha}) for alpha in (1.23456789, 1.23456712))
    assert first != second


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PATTERNS, PATTERNS)
def test_options_write_unequal_patterns_as_unequal_texts(
    first: dict[str, float] | None, second: dict[str, float] | None
) -> None:
    try:
        adapters: list[AdapterOptions] = [lora(alpha_pattern=pattern) for pattern in (first, second)]
    except ValueError:
        return  # not a regular expression
    orders = [list((adapter.alpha_pattern or {}).items()) for adapter in adapters]
    texts = [adapter.model_dump(mode="json")["alpha_pattern"] for adapter in adapters]
    assert (texts[0] == texts[1]) == (orders[0] == orders[1])
