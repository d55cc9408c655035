"""Learning rates against numbers worked out by hand."""

import pytest
import torch

from sweep.training.schedule import factor, learning_rates
from tests.support.builders import optimizer


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1]),
        ({"schedule": "constant", "warmup_steps": 2}, [1 / 2, 1, 1, 1]),
        ({"schedule": "linear"}, [1, 3 / 4, 2 / 4, 1 / 4]),
        ({"schedule": "linear", "warmup_steps": 2}, [1 / 2, 1, 1, 1 / 2]),
        ({"schedule": "cosine"}, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
        ({"schedule": "cosine", "warmup_steps": 1}, [1, 1, 0.75, 0.25]),
        ({"schedule": "linear", "warmup_steps": 4}, [1 / 4, 2 / 4, 3 / 4, 1]),
        ({"schedule": "cosine", "warmup_steps": 8}, [1 / 8, 2 / 8, 3 / 8, 4 / 8]),
    ],
)
def test_schedule_of_four_steps_by_hand(settings: dict[str, object], expected: list[float]) -> None:
    setting = optimizer(**settings)
    assert [factor(setting, step, 4) for step in (1, 2, 3, 4)] == pytest.approx(expected, rel=1e-12)


def test_schedule_of_each_trial_is_its_own() -> None:
    settings = [optimizer(lr=0.4, schedule="linear"), optimizer(lr=2.0), optimizer(lr=0.4, warmup_steps=2)]
    rates = learning_rates(settings, 4)
    assert rates.shape == (4, 3, 1)
    assert rates.dtype == torch.float64
    expected = [[0.4, 2.0, 0.2], [0.3, 2.0, 0.4], [0.2, 2.0, 0.4], [0.1, 2.0, 0.4]]
    torch.testing.assert_close(rates[..., 0], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_schedule_linear_is_that_of_hugging_face_trainers() -> None:
    """Their ``get_linear_schedule_with_warmup`` multiplies update i (from 0) by (steps − i) / (steps − warmup)."""
    setting = optimizer(schedule="linear", warmup_steps=3)
    ours = [factor(setting, step, 10) for step in range(4, 11)]
    assert ours == pytest.approx([(10 - update) / 7 for update in range(3, 10)], rel=1e-12)
