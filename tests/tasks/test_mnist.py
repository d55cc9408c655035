"""Digits: turning, inverting and choosing them, and what stands in the domains."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sweep.errors import ConfigError
from sweep.tasks.mnist.digits import digits as read_digits
from sweep.tasks.mnist.task import MEAN, STD, Mnist, mnist, rotate
from tests.support.builders import NOWHERE, digits, randn

IMAGES = randn(3, 28, 28).abs()
# A grid position is a cosine times a pixel index, exact to some 1e-6 pixels; a pixel's neighbours differ by up to 4.
POSITION = 3e-5


def pixels(task: Mnist, part: str = "train") -> torch.Tensor:
    return (getattr(task.target, part).inputs * STD + MEAN).view(-1, 28, 28)


def test_rotate_by_nothing_or_a_full_turn_leaves_every_pixel() -> None:
    torch.testing.assert_close(rotate(IMAGES, 0.0), IMAGES, atol=POSITION, rtol=0)
    torch.testing.assert_close(rotate(IMAGES, 360.0), IMAGES, atol=POSITION, rtol=0)


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_rotate_by_quarter_turns_moves_pixels_counter_clockwise(quarters: int) -> None:
    expected = torch.rot90(IMAGES, quarters, dims=(1, 2))  # from the first axis, downwards, to the second
    inner = (slice(None), slice(1, 27), slice(1, 27))
    torch.testing.assert_close(rotate(IMAGES, 90.0 * quarters)[inner], expected[inner], atol=POSITION, rtol=0)
    torch.testing.assert_close(rotate(IMAGES, 90.0 * quarters), expected, atol=POSITION, rtol=0)


def test_rotate_there_and_back_is_nearly_the_image() -> None:
    smooth = torch.nn.functional.avg_pool2d(IMAGES, 9, 1, 4)
    there_and_back = rotate(rotate(smooth, 20.0), -20.0)
    centre = (slice(None), slice(9, 19), slice(9, 19))
    assert (there_and_back - smooth)[centre].abs().max() < 0.1
    assert (rotate(smooth, 20.0) - smooth)[centre].abs().max() > 0.1


def test_rotate_fills_what_comes_in_with_black() -> None:
    assert rotate(torch.ones(1, 28, 28), 45.0)[0, 0, 0] == 0


def test_mnist_domains_hold_the_same_digits_and_only_the_target_is_turned() -> None:
    task = mnist(digits(angle=90.0), NOWHERE)
    upright = (task.source.train.inputs * STD + MEAN).view(-1, 28, 28)
    torch.testing.assert_close(pixels(task), torch.rot90(upright, 1, dims=(1, 2)), atol=POSITION, rtol=0)
    assert torch.equal(task.source.train.targets, task.target.train.targets)
    assert task.source.train.inputs.shape == (4000, 784)
    assert task.source.held_out.inputs.shape == (1000, 784)


def test_mnist_inverted_digits_are_one_minus_the_pixel() -> None:
    task = mnist(digits(shift="invert"), NOWHERE)
    upright = (task.source.held_out.inputs * STD + MEAN).view(-1, 28, 28)
    torch.testing.assert_close(pixels(task, "held_out"), 1 - upright, atol=1e-6, rtol=0)


def test_mnist_single_digit_is_all_of_its_examples_and_no_other() -> None:
    task = mnist(digits(shift="digit", digit=9), NOWHERE)
    assert task.target.train.targets.tolist() == [9] * 400
    assert task.target.held_out.targets.tolist() == [9] * 100
    nines = task.source.train.targets == 9
    assert torch.equal(task.target.train.inputs, task.source.train.inputs[nines])


def test_validation_images_are_of_the_training_part_and_of_every_class() -> None:
    before, task = mnist(digits(), NOWHERE), mnist(digits(validation=500), NOWHERE)
    for was, now in ((before.source, task.source), (before.target, task.target)):
        assert now.validation is not None
        assert now.validation.targets.bincount().tolist() == [50] * 10
        assert torch.equal(now.held_out.inputs, was.held_out.inputs)
        assert len(now.train.inputs) == 3500
        together = torch.cat([now.train.inputs, now.validation.inputs]).sort(0).values
        assert torch.equal(together, was.train.inputs.sort(0).values)
    assert torch.equal(task.source.validation.targets, task.target.validation.targets)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 4000}, r"must leave some of the 4,000 training images"),
        ({"validation": 3, "shift": "digit", "digit": 3}, r"none of them shows a 3; give more"),
    ],
)
def test_validation_that_leaves_or_holds_nothing_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^task\.validation = {settings['validation']}: {message}$"):
        mnist(digits(**settings), NOWHERE)


def test_mnist_pixels_are_standardised_by_the_published_mean_and_deviation() -> None:
    source = mnist(digits(), NOWHERE).source.train.inputs
    (images, _), _ = read_digits("embedded", NOWHERE)
    expected = (torch.tensor(images).float() / 255 - 0.1307) / 0.3081
    assert torch.equal(source, expected.flatten(1))
    assert abs(source.mean()) < 0.02  # 5,000 of the 70,000 have nearly the same mean
    assert abs(source.std() - 1) < 0.02


def test_mnist_network_has_the_asked_hidden_layers(tmp_path: Path) -> None:
    assert mnist(digits(hidden=(24, 16)), tmp_path).new_model(torch.Generator()).widths == (784, 24, 16, 10)
