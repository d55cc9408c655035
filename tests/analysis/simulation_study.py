"""Measures how often the statistics are right, on simulated seeds where the truth is known.

``python -m tests.analysis.simulation_study`` prints the tables of ``docs/statistics.md`` (three minutes).
Seeds shift every cell of a sweep together (standard deviation 0.012); the rest varies by 0.006, as measured on a
small transformer.
"""

import argparse
import math

import numpy as np
import pandas as pd
from scipy import stats

from analysis.cells import Observations
from analysis.columns import describe
from analysis.compare import against, clear_best, compare
from analysis.stats import detectable, paired, summarise
from analysis.tuning import choose

SEED_SD, RESIDUAL_SD = 0.012, 0.006


def cells(rng: np.random.Generator, effects: np.ndarray, n: int) -> np.ndarray:
    """One value per cell and seed: effect + shared seed shift + residual."""
    shape = (len(effects), n)
    return effects[:, None] + rng.normal(0, SEED_SD, n)[None, :] + rng.normal(0, RESIDUAL_SD, shape)


def observed(values: np.ndarray) -> Observations:
    """The same as the package holds it: cells named 0, 1, 2, … and seeds likewise."""
    count, n = values.shape
    names = [str(i) for i in range(count)]
    frame = pd.DataFrame(
        {
            "adapter.init": np.repeat(names, n),
            "seed": np.tile([str(s) for s in range(n)], count),
            "value": values.ravel(),
        }
    )
    index = pd.MultiIndex.from_arrays([names], names=["adapter.init"])
    counts = pd.DataFrame({"trials": n, "finished": n, "diverged": 0, "failed": 0, "n": n}, index=index)
    return Observations(
        describe("eval/loss"), ("adapter.init",), frame, counts, {"adapter.init": names}, {}, ("adapter.init",), ()
    )


def interval_coverage(rng: np.random.Generator, n: int, repeats: int, draw: str = "normal") -> float:
    """How often our 95% interval of a cell holds the true mean."""
    hits = 0
    for _ in range(repeats):
        x = rng.normal(size=n) if draw == "normal" else rng.exponential(size=n) - 1
        found = summarise(x)
        hits += found.low <= 0 <= found.high
    return hits / repeats


def bootstrap_coverage(rng: np.random.Generator, n: int, repeats: int, method: str) -> float:
    """The same for scipy's bootstrap interval."""
    hits = 0
    for _ in range(repeats):
        x = rng.normal(size=n)
        found = stats.bootstrap((x,), np.mean, n_resamples=499, method=method, rng=rng).confidence_interval
        hits += found.low <= 0 <= found.high
    return hits / repeats


def power(rng: np.random.Generator, n: int, effect: float, repeats: int) -> tuple[float, float]:
    """How often a true ``effect`` is found at p < 0.05: by our paired test, and by Welch's unpaired one."""
    ours = welch = 0
    for _ in range(repeats):
        base, cell = cells(rng, np.array([0.0, effect]), n)
        ours += paired(cell - base).p < 0.05
        welch += stats.ttest_ind(cell, base, equal_var=False).pvalue < 0.05
    return ours / repeats, welch / repeats


def family_errors(rng: np.random.Generator, n: int, count: int, repeats: int) -> tuple[float, float, float]:
    """Sweeps of ``count`` equal cells: how many have a false verdict without and with Holm, and a false bold."""
    plain = corrected = bold = 0
    for _ in range(repeats):
        values = cells(rng, np.zeros(count), n)
        seen = observed(values)
        found = compare(seen, against(seen, ("0",)))
        plain += any(item.difference.p < 0.05 for item in found)
        corrected += any(item.significant for item in found)
        bold += clear_best(seen, seen.filled) is not None
    return plain / repeats, corrected / repeats, bold / repeats


def tuning_errors(rng: np.random.Generator, n: int, rates: int, repeats: int) -> tuple[float, float, float, float]:
    """Two equal cells, one tried at one rate, one at ``rates`` equally good ones (own noise each).

    Returns the bias of the tuned cell's mean, in residual standard deviations, and how often it is called
    better: choosing and reporting on the same seeds, and as this package does.
    """
    naive_bias, our_bias, naive_better, our_better = 0.0, 0.0, 0, 0
    for _ in range(repeats):
        values = cells(rng, np.zeros(rates + 1), n)
        base, tried = values[0], values[1:]
        naive = tried[tried.mean(axis=1).argmin()] - base
        group = pd.DataFrame(
            {"rate": np.repeat(np.arange(rates) + 1.0, n), "seed": np.tile([str(s) for s in range(n)], rates)}
        )
        group["value"] = group["score"] = tried.ravel()
        chosen = choose(group)
        ours = np.array([chosen.values[str(s)] for s in range(n)]) - base
        naive_bias += naive.mean() / RESIDUAL_SD / repeats
        our_bias += ours.mean() / RESIDUAL_SD / repeats
        naive_better += paired(naive).p < 0.05 and naive.mean() < 0
        our_better += paired(ours).p < 0.05 and ours.mean() < 0
    return naive_bias, our_bias, naive_better / repeats, our_better / repeats


def detectable_honesty(rng: np.random.Generator, n: int, repeats: int) -> tuple[float, float]:
    """The power at the true detectable difference, and the median ratio of the estimated to the true one."""
    sd = math.sqrt(2) * RESIDUAL_SD
    truth = detectable(sd, n)
    found = ratio = 0.0
    ratios = []
    for _ in range(repeats):
        base, cell = cells(rng, np.array([0.0, truth]), n)
        difference = paired(cell - base)
        found += difference.p < 0.05
        ratios.append(detectable(difference.std, n) / truth)
    ratio = float(np.median(ratios))
    return found / repeats, ratio


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeats", type=int, default=4000)
    repeats = options.parse_args().repeats
    rng = np.random.default_rng(20)
    few = max(200, repeats // 4)
    print(f"Coverage of a nominal 95% interval of a cell's mean ({repeats} sweeps; bootstrap {few}):\n")
    print("| seeds | t (ours) | t, skewed data | percentile bootstrap | BCa bootstrap |\n|---:|---:|---:|---:|---:|")
    for n in (3, 5, 10):
        row = [interval_coverage(rng, n, repeats), interval_coverage(rng, n, repeats, "exponential")]
        row += [bootstrap_coverage(rng, n, few, method) for method in ("percentile", "BCa")]
        print(f"| {n} | " + " | ".join(f"{100 * value:.1f}%" for value in row) + " |")
    print(f"\nHow often a true difference of 0.012 is found at p < 0.05 ({repeats} sweeps):\n")
    print("| seeds | paired t (ours) | Welch, unpaired | smallest p of a rank test |\n|---:|---:|---:|---:|")
    for n in (3, 5, 10):
        ours, welch = power(rng, n, 0.012, repeats)
        print(f"| {n} | {100 * ours:.0f}% | {100 * welch:.0f}% | {2.0 ** (1 - n):.3g} |")
    print(f"\nFalse findings in sweeps of equal cells, 5 seeds ({few} sweeps each):\n")
    print(
        "| cells | any p < 0.05, uncorrected | any verdict (Holm, ours) | a cell in bold (ours) |\n|---:|---:|---:|---:|"
    )
    for count in (2, 4, 8, 16):
        row = family_errors(rng, 5, count, few)
        print(f"| {count} | " + " | ".join(f"{100 * value:.1f}%" for value in row) + " |")
    print(f"\nA cell tuned over equally good learning rates against an equal untuned one ({repeats} sweeps):\n")
    print(
        "| seeds | rates | bias, same seeds | bias, other seeds (ours) | falsely better, same seeds "
        "| falsely better (ours) |\n|---:|---:|---:|---:|---:|---:|"
    )
    for n in (3, 5, 10):
        for rates in (3, 6):
            bias, our_bias, better, our_better = tuning_errors(rng, n, rates, repeats)
            print(
                f"| {n} | {rates} | {bias:+.2f} sd | {our_bias:+.2f} sd | {100 * better:.1f}% | {100 * our_better:.1f}% |"
            )
    print(f"\nThe difference that could have been seen ({repeats} sweeps):\n")
    print("| seeds | found at the true value (claimed 80%) | median estimate / true value |\n|---:|---:|---:|")
    for n in (3, 5, 10):
        found, ratio = detectable_honesty(rng, n, repeats)
        print(f"| {n} | {100 * found:.1f}% | {ratio:.2f} |")


if __name__ == "__main__":
    main()
