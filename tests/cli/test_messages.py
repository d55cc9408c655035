"""What is said of an error that ends a command."""

from sweep.cli.messages import readable
from sweep.errors import ConfigError


def test_readable_finds_the_mistake_among_causes_that_form_a_circle() -> None:
    outer, inner, mistake = RuntimeError("outer"), ValueError("inner"), ConfigError(["seed = -1: must not be negative"])
    outer.__cause__, inner.__context__ = inner, outer
    assert readable(outer) == "outer"
    inner.__context__, mistake.__context__ = mistake, outer
    assert readable(outer) == "seed = -1: must not be negative"
