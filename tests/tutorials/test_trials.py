"""The trials that a tutorial speaks of."""

import pytest

from sweep.errors import ConfigError
from sweep.tutorials.trials import Trials


def test_trials_at_levels_that_none_has_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no finished trial has {'adapter\.rank': 3}"):
        Trials([]).where({"adapter.rank": 3})
