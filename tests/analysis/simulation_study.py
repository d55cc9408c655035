"""Measures how often the statistics are right, on simulated seeds where the truth is known.

``python -m tests.analysis.simulation_study`` prints the tables of ``docs/statistics.md`` (some minutes).
Seeds shift every cell of a sweep together (standard deviation 0.012); the rest varies by 0.006, as measured on a
small transformer.
"""

import argparse
import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from analysis.columns import describe
from analysis.statistics.best import best_of
from analysis.statistics.compare import against, compare, first, ranking
from analysis.statistics.intervals import Error, detectable, paired, summarise
from analysis.statistics.observations import Observations
from analysis.statistics.tuning import choose
from tests.analysis import crossed_study, keep_study

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
    counts = pd.DataFrame({"trials": n, "finished": n, "pruned": 0, "diverged": 0, "failed": 0, "n": n}, index=index)
    return Observations(
        describe("eval/loss"), ("adapter.init",), frame, counts, {"adapter.init": names}, {}, ("adapter.init",), ()
    )


def averaged(values: np.ndarray) -> Observations:
    """Cells × levels × seeds as the package holds them: averaged over the factor of the levels."""
    count, depth, n = values.shape
    base = observed(values.mean(axis=1))
    detail = pd.DataFrame(
        {
            "adapter.init": np.repeat([str(i) for i in range(count)], depth * n),
            "adapter.rank": np.tile(np.repeat([str(i) for i in range(depth)], n), count),
            "seed": np.tile([str(s) for s in range(n)], count * depth),
            "value": values.ravel(),
        }
    )
    return replace(base, averaged=("adapter.rank",), detail=detail)


def surviving(values: np.ndarray, kept: np.ndarray) -> Observations:
    """Cells × seeds of which only those of ``kept`` did not diverge."""
    base = observed(values)
    names = [str(i) for i in range(len(values))]
    diverged = {(name,): frozenset(map(str, np.flatnonzero(~row))) for name, row in zip(names, kept, strict=True)}
    counts = base.counts.assign(n=kept.sum(axis=1))
    return replace(base, values=base.values[kept.ravel()], counts=counts, diverged=diverged)


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
        bold += first(ranking(seen, seen.filled)) is not None
    return plain / repeats, corrected / repeats, bold / repeats


@dataclass(frozen=True)
class TuningErrors:
    """Of a tuned cell against an equal untuned one: bias of its mean in residual standard deviations, and how
    often it is called better or worse; ``naive``: chosen and reported on the same seeds, ``ours``: as here."""

    naive_bias: float
    naive_better: float
    our_bias: float
    our_better: float
    our_worse: float


def tuning_errors(rng: np.random.Generator, n: int, rates: int, repeats: int, gap: float = 0.0) -> TuningErrors:
    """Two equal cells, one tried at its best rate only, one at ``rates``, each ``gap`` worse than the one before."""
    truth = np.concatenate([[0.0], np.arange(rates) * gap])
    naive, ours = np.zeros((repeats, n)), np.zeros((repeats, n))
    frame = pd.DataFrame(
        {"rate": np.repeat(np.arange(rates) + 1.0, n), "seed": np.tile([str(s) for s in range(n)], rates)}
    )
    for index in range(repeats):
        values = cells(rng, truth, n)
        base, tried = values[0], values[1:]
        naive[index] = tried[tried.mean(axis=1).argmin()] - base
        chosen = choose(frame.assign(value=tried.ravel(), score=tried.ravel())).values
        ours[index] = np.array([chosen[str(s)] for s in range(n)]) - base
    naive_found, our_found = (np.array([paired(row).p < 0.05 for row in each]) for each in (naive, ours))
    naive_mean, our_mean = naive.mean(axis=1), ours.mean(axis=1)
    return TuningErrors(
        naive_mean.mean() / RESIDUAL_SD,
        float((naive_found & (naive_mean < 0)).mean()),
        our_mean.mean() / RESIDUAL_SD,
        float((our_found & (our_mean < 0)).mean()),
        float((our_found & (our_mean > 0)).mean()),
    )


def interactions(rng: np.random.Generator, n: int, levels: int, size: float, repeats: int) -> tuple[float, float]:
    """A cell that is worse by ``size`` at the first level and better at the last, so that the average is no difference:
    how often it is said to depend on the factor, and how often it has a plain verdict."""
    depends = plain = 0
    effect = np.zeros((2, levels, 1))
    effect[1, 0], effect[1, -1] = size, -size
    for _ in range(repeats):
        shared = rng.normal(0, SEED_SD, n)
        values = effect + shared + rng.normal(0, RESIDUAL_SD, (2, levels, n))
        [only] = compare(averaged(values), [(("1",), ("0",))])
        depends += only.verdict == "depends"
        plain += only.significant
    return depends / repeats, plain / repeats


def survivors(rng: np.random.Generator, n: int, lost: int, repeats: int) -> tuple[float, float]:
    """Of two equal cells one loses its ``lost`` worst seeds: how often the survivors' test alone calls it better, and
    how often it is plainly better here."""
    alone = plain = 0
    for _ in range(repeats):
        values = cells(rng, np.zeros(2), n)
        kept = np.ones((2, n), dtype=bool)
        kept[1, np.argsort(values[1] - values[0])[n - lost :]] = False
        [only] = compare(surviving(values, kept), [(("1",), ("0",))])
        alone += only.difference.p < 0.05 and only.difference.mean < 0
        plain += only.verdict == "better"
    return alone / repeats, plain / repeats


def best_bias(rng: np.random.Generator, n: int, count: int, repeats: int) -> tuple[float, float]:
    """The bias of the best of ``count`` equal cells, in standard errors of a cell's mean: its own mean, and ours."""
    own, ours = np.zeros(repeats), np.zeros(repeats)
    for index in range(repeats):
        values = cells(rng, np.zeros(count), n)
        best = best_of(seen := observed(values), seen.filled)
        own[index], ours[index] = seen.summary(best.cell).mean - values.mean(), best.summary.mean - values.mean()
    scale = RESIDUAL_SD / math.sqrt(n)
    return own.mean() / scale, ours.mean() / scale


def detectable_honesty(rng: np.random.Generator, n: int, repeats: int) -> tuple[float, float]:
    """The power at the true detectable difference, and the median ratio of the estimated to the true one."""
    sd = math.sqrt(2) * RESIDUAL_SD
    truth = detectable(Error(sd / math.sqrt(n), n - 1))
    found = ratio = 0.0
    ratios = []
    for _ in range(repeats):
        base, cell = cells(rng, np.array([0.0, truth]), n)
        difference = paired(cell - base)
        found += difference.p < 0.05
        ratios.append(detectable(*difference.errors) / truth)
    ratio = float(np.median(ratios))
    return found / repeats, ratio


def _print_conditions(rng: np.random.Generator, repeats: int) -> None:
    """The tables on averages, diverged seeds and the best of many cells."""
    print(f"\nTwo cells averaged over a factor ({repeats} sweeps each): equal, or ±0.012 apart at its two ends:\n")
    print(
        "| levels | seeds | equal: *depends on* | equal: better or worse | ±0.012: *depends on* | ±0.012: better or worse |"
        "\n|---:|---:|---:|---:|---:|---:|"
    )
    for levels in (2, 4):
        for n in (3, 5, 10):
            row = [*interactions(rng, n, levels, 0.0, repeats), *interactions(rng, n, levels, 0.012, repeats)]
            print(f"| {levels} | {n} | " + " | ".join(f"{100 * value:.1f}%" for value in row) + " |")
    print(f"\nOne of two equal cells loses its worst seeds of 8 ({repeats} sweeps each):\n")
    print("| lost | better, survivors alone | plainly better (ours) |\n|---:|---:|---:|")
    for lost in (1, 2, 3):
        row = survivors(rng, 8, lost, repeats)
        print(f"| {lost} | " + " | ".join(f"{100 * value:.1f}%" for value in row) + " |")
    print(
        f"\nThe mean of the best of equal cells, 5 seeds, bias in standard errors of a cell ({repeats} sweeps each):\n"
    )
    print("| cells | its own mean | chosen on one half, reported on the other (ours) |\n|---:|---:|---:|")
    for count in (4, 12, 36):
        row = best_bias(rng, 5, count, repeats)
        print(f"| {count} | " + " | ".join(f"{value:+.2f}" for value in row) + " |")


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
    print(f"\nA tuned cell against an equal untuned one ({repeats} sweeps; a fair test errs 2.5% each way):\n")
    print(
        "| rates tried | seeds | bias, same seeds | bias (ours) | falsely better, same seeds "
        "| falsely better (ours) | falsely worse (ours) |\n|:---|---:|---:|---:|---:|---:|---:|"
    )
    for name, rates, gap in (
        ("6, equally good", 6, 0.0),
        ("3, equally good", 3, 0.0),
        ("3, each 0.012 worse", 3, 0.012),
    ):
        for n in (3, 5, 10):
            found = tuning_errors(rng, n, rates, repeats, gap)
            shares = (found.naive_better, found.our_better, found.our_worse)
            shown = " | ".join(f"{100 * value:.1f}%" for value in shares)
            print(f"| {name} | {n} | {found.naive_bias:+.2f} sd | {found.our_bias:+.2f} sd | {shown} |")
    _print_conditions(np.random.default_rng(20), max(200, repeats // 20))
    print(f"\nThe difference that could have been seen ({repeats} sweeps):\n")
    print("| seeds | found at the true value (claimed 80%) | median estimate / true value |\n|---:|---:|---:|")
    for n in (3, 5, 10):
        found, ratio = detectable_honesty(rng, n, repeats)
        print(f"| {n} | {100 * found:.1f}% | {ratio:.2f} |")
    crossed_study.main(few)
    keep_study.main(repeats)


if __name__ == "__main__":
    main()
