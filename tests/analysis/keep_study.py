"""Measures what ``training.keep`` does to a verdict: each trial valued at its last state, or at its best validation point.

A trial is evaluated STEPS times. Its true loss falls to a turn that differs by seed and rises from there, to an end that is
0, 0.01 or 0.05 above on average; it also wanders by 0.003. Single examples vary as in ``crossed_study``, at every
evaluation; since they are the same examples, their parts at neighbouring evaluations have a correlation of 0.8.
``python -m tests.analysis.keep_study`` prints the table alone.
"""

import numpy as np

from analysis.statistics.crossed import tested
from analysis.statistics.intervals import ALPHA, holm
from tests.analysis.crossed_study import EFFECT, SPREADS

STEPS, SEEDS, EXAMPLES = 8, 5, 256
RISES = {"none": 0.0, "mild": 0.01, "strong": 0.05}
WANDER_SD = 0.003
CORRELATION = 0.8
EQUAL = 4
"""Cells that are equal; behind them come one that does not overfit, and one with a lower best that does."""
WAYS = {
    "last": (None, 0),
    "best of 16 validation examples": ("validation", 16),
    "best of 64": ("validation", 64),
    "best of 256": ("validation", 256),
    "best of the 256 test examples": ("test", 256),
}
"""Each way to keep a state: the part that chooses it, and how many of its examples."""


def truths(rng: np.random.Generator, rise: float) -> np.ndarray:
    """True losses (cells, SEEDS, STEPS); the smooth curve of a trial is 0 at its turn, or EFFECT lower in the last cell."""
    cells, steps = EQUAL + 2, np.arange(1, STEPS + 1)
    turn = rng.uniform(3, 6, (cells, SEEDS, 1))
    end = rng.gamma(4, 1 / 4, (cells, SEEDS, 1)) * np.array([rise] * EQUAL + [0, rise])[:, None, None]
    curve = 0.5 * np.clip(np.exp(-steps / 1.2) - np.exp(-turn / 1.2), 0, None)
    curve += end * np.clip(steps - turn, 0, None) / (STEPS - turn)
    curve += rng.normal(0, SPREADS[0] / 2**0.5, turn.shape) + rng.normal(0, WANDER_SD, curve.shape)
    curve[-1] -= EFFECT
    return curve


def scored(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """The scores (cells, SEEDS, EXAMPLES, STEPS) of a sample of examples under ``truth``."""
    places = np.arange(STEPS)
    along = np.linalg.cholesky(CORRELATION ** abs(places[:, None] - places)).astype(np.float32)
    cells = len(truth)
    example, both = (
        rng.standard_normal((cells, n, EXAMPLES, STEPS), dtype=np.float32) @ along.T * np.float32(spread / 2**0.5)
        for n, spread in zip((1, SEEDS), SPREADS[1:], strict=True)
    )
    return example + both + truth[:, :, None].astype(np.float32)


def kept(rng: np.random.Generator, rise: float, repeats: int) -> dict[str, list[float]]:
    """For each of WAYS: the mean of the reported test value − the true value of the kept state, and − the best true value;
    how often one of EQUAL − 1 equal cells is called different from another; and how often the cell with the lower best is
    called better, and worse, than the cell that does not overfit."""
    found = {name: np.zeros(5) for name in WAYS}
    for _ in range(repeats):
        truth = truths(rng, rise)
        parts = {part: scored(rng, truth) for part in ("validation", "test")}
        for name, (part, count) in WAYS.items():
            step = np.full(truth.shape[:2], STEPS - 1)
            if part is not None:
                step = parts[part][:, :, :count].mean(axis=2).argmin(axis=2)
            reported = np.take_along_axis(parts["test"], step[:, :, None, None], 3)[..., 0]
            bias = reported.mean(axis=2) - np.take_along_axis(truth, step[..., None], 2)[..., 0]
            above = reported.mean(axis=2) - truth.min(axis=2)
            d = np.concatenate([reported[1:EQUAL] - reported[0], reported[-1:] - reported[-2]])
            *equal, other = (tested(one.mean(axis=1, dtype=float), one, "both") for one in d)
            different = min(holm([one.p for one in equal])) < ALPHA
            better, worse = (other.p < ALPHA and sign * other.mean > 0 for sign in (-1, 1))
            found[name] += [bias[:EQUAL].mean(), above[:EQUAL].mean(), different, better, worse]
    return {name: [float(value) for value in total / repeats] for name, total in found.items()}


def main(repeats: int) -> None:
    """Print the table; ``repeats`` sweeps a row."""
    rng = np.random.default_rng(22)
    print(f"\nThe state that is kept, {SEEDS} seeds × {EXAMPLES} test examples ({repeats} sweeps each):\n")
    heads = ["reported − true value of that state", "reported − best true value"]
    heads += [f"any of {EQUAL - 1} equal cells called different", f"best lower by {EFFECT}: better", "worse"]
    print("| overfitting | kept | " + " | ".join(heads) + " |\n|:---|:---|" + "---:|" * len(heads))
    for overfitting, rise in RISES.items():
        for name, (bias, above, *rates) in kept(rng, rise, repeats).items():
            shown = [
                *(f"{round(value, 4) + 0.0:+.4f}" for value in (bias, above)),
                *(f"{100 * rate:.1f}%" for rate in rates),
            ]
            print(f"| {overfitting} | {name} | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    main(4000)
