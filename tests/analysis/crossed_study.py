"""Measures verdicts for new seeds and new examples where both are samples, as ``simulation_study`` does for seeds.

A paired difference of two cells varies by 0.006 over seeds, by 0.036 over examples and by 0.03 over both together: losses
of windows of 64 tokens under a small language model. A single cell has these divided by √2.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.columns import describe
from analysis.sources.scores import Sheet
from analysis.statistics.compare import compare
from analysis.statistics.confidence import Generalise
from analysis.statistics.crossed import tested
from analysis.statistics.examples import Scored
from analysis.statistics.intervals import ALPHA, holm
from analysis.statistics.observations import Observations
from analysis.statistics.tuning import choose

SPREADS = (0.006, 0.036, 0.03)
EFFECT = 0.02
FAMILIES = (3, 7, 15)


def drawn(rng: np.random.Generator, count: int, n: int, m: int) -> np.ndarray:
    """The scores of ``count`` equal cells (count, n, m): seeds, examples and what is left, all of the cell's own."""
    shapes = ((count, n, 1), (count, 1, m), (count, n, m))
    seed, example, both = (
        rng.standard_normal(shape, dtype=np.float32) * np.float32(spread / 2**0.5)
        for shape, spread in zip(shapes, SPREADS, strict=True)
    )
    both += seed
    both += example
    return both


def families(rng: np.random.Generator, n: int, m: int, repeats: int) -> dict[Generalise, list[float]]:
    """By what is generalised to: how often the interval of a true difference of zero holds it; then for each of FAMILIES
    how often any of so many equal cells is called different; then how often one that differs by EFFECT is."""
    kinds: tuple[Generalise, ...] = ("both", "seeds")
    hits = {kind: np.zeros(1 + 2 * len(FAMILIES)) for kind in kinds}
    for _ in range(repeats):
        cells = drawn(rng, 1 + max(FAMILIES), n, m)
        cells[1:] -= cells[0]
        for kind in kinds:
            equal = [tested(d.mean(axis=1, dtype=float), d, kind) for d in cells[1:]]
            better = tested(cells[1].mean(axis=1, dtype=float) + EFFECT, cells[1] + np.float32(EFFECT), kind).p
            ps = [one.p for one in equal]
            hits[kind] += [
                np.mean([one.low <= 0 <= one.high for one in equal]),
                *(min(holm(ps[:k])) < ALPHA for k in FAMILIES),
                *(holm([better, *ps[1:k]])[0] < ALPHA for k in FAMILIES),
            ]
    return {kind: [float(value) for value in total / repeats] for kind, total in hits.items()}


def observed(scores: np.ndarray, generalise: Generalise, averaged: Sequence[str] = ()) -> Observations:
    """Cells × levels × seeds × examples as the package holds them: averaged over the factor of the levels."""
    count, depth, n, m = scores.shape
    names = [str(place) for place in range(count)]
    detail = pd.DataFrame(
        {
            "adapter.init": np.repeat(names, depth * n),
            "adapter.rank": np.tile(np.repeat([str(level) for level in range(depth)], n), count),
            "seed": np.tile([str(seed) for seed in range(n)], count * depth),
            "value": scores.mean(axis=3).ravel(),
            "trial": np.arange(count * depth * n),
        }
    )
    values = detail.groupby(["adapter.init", "seed"], sort=False)["value"].mean().reset_index()
    index = pd.MultiIndex.from_arrays([names], names=["adapter.init"])
    sheet = Sheet(scores.reshape(-1, m), np.ones(m), np.arange(m), whole=True, evaluated=0)
    return Observations(
        describe("eval/loss"),
        ("adapter.init",),
        values,
        pd.DataFrame({"trials": n, "n": n}, index=index),
        {"adapter.init": names},
        {},
        ("adapter.init",),
        (),
        averaged=tuple(averaged),
        detail=detail,
        scored=Scored(sheet, pd.RangeIndex(len(detail))),
        generalise=generalise,
    )


def dependences(rng: np.random.Generator, n: int, m: int, size: float, repeats: int) -> list[float]:
    """Two cells averaged over two levels, ``size`` apart at each, in opposite ways: how often their difference is said to
    depend on the level, and how often it is better or worse, for both; then the same for seeds alone."""
    hits = np.zeros(4)
    for _ in range(repeats):
        scores = drawn(rng, 4, n, m).reshape(2, 2, n, m)
        scores[1] += np.float32(size) * np.array([1, -1], dtype=np.float32)[:, None, None]
        found = [compare(observed(scores, kind, ["adapter.rank"]), [(("1",), ("0",))])[0] for kind in ("both", "seeds")]
        hits += [value for one in found for value in (one.verdict == "depends", one.significant)]
    return [float(value) for value in hits / repeats]


def tuned(rng: np.random.Generator, n: int, m: int, repeats: int, rates: int = 6) -> list[float]:
    """A cell at the best of ``rates`` equal ones, chosen on m validation examples, against an equal one at a single rate.

    How often it is better and worse, for both: valued on other m examples, on the validation examples, and on these by
    the test over seeds.
    """
    hits = np.zeros(6)
    frame = pd.DataFrame(
        {"rate": np.repeat(np.arange(rates) + 1.0, n), "seed": np.tile([str(seed) for seed in range(n)], rates)}
    )
    kinds: tuple[tuple[int, Generalise], ...] = ((1, "both"), (0, "both"), (0, "seeds"))
    for _ in range(repeats):
        parts = [drawn(rng, 1 + rates, n, m) for _ in ("validation", "test")]
        score = parts[0][1:].mean(axis=2, dtype=float).ravel()
        rows = choose(frame.assign(value=score, score=score)).rows
        chosen = [rows[str(seed)] for seed in range(n)]
        for place, (part, kind) in enumerate(kinds):
            d = parts[part][1:].reshape(-1, m)[chosen] - parts[part][0]
            found = tested(d.mean(axis=1, dtype=float), d, kind)
            hits[2 * place : 2 * place + 2] += found.p < ALPHA, found.p < ALPHA and found.mean > 0
    hits[::2] -= hits[1::2]
    return [float(value) for value in hits / repeats]


def lost(rng: np.random.Generator, n: int, m: int, gone: int, repeats: int) -> list[float]:
    """One of two equal cells loses its ``gone`` worst seeds: how often it is plainly better, for both and for seeds."""
    hits = np.zeros(2)
    for _ in range(repeats):
        scores = drawn(rng, 2, n, m)[:, None]
        worst = np.argsort((scores[1] - scores[0])[0].mean(axis=1))[n - gone :]
        for place, kind in enumerate(("both", "seeds")):
            seen = observed(scores, kind)
            kept = ~((seen.values["adapter.init"] == "1") & seen.values["seed"].isin(map(str, worst)))
            there = ~((seen.detail["adapter.init"] == "1") & seen.detail["seed"].isin(map(str, worst)))
            hits[place] += _plainly_better(seen, kept, there, worst)
    return [float(value) for value in hits / repeats]


def _plainly_better(seen: Observations, kept: pd.Series, there: pd.Series, worst: np.ndarray) -> bool:
    diverged = {("1",): frozenset(map(str, worst))}
    values, detail = seen.values[kept].reset_index(drop=True), seen.detail[there]
    [only] = compare(replace(seen, values=values, detail=detail, diverged=diverged), [(("1",), ("0",))])
    return only.verdict == "better"


def main(repeats: int) -> None:
    """Print the tables; ``repeats`` sweeps each."""
    rng = np.random.default_rng(21)
    sizes = [(n, m) for n in (3, 5, 10) for m in (64, 400, 2000)]
    found = {(n, m): families(rng, n, m, repeats) for n, m in sizes}
    for kind, title in (("both", "for new seeds and new examples (ours)"), ("seeds", "for new seeds only")):
        print(f"\nComparisons of equal cells with a baseline, tested {title} ({repeats} sweeps each):\n")
        heads = [f"any of {k} called different" for k in FAMILIES] + [f"{EFFECT} found, one of {k}" for k in FAMILIES]
        print("| seeds × examples | coverage | " + " | ".join(heads) + " |\n|:---|" + "---:|" * (1 + len(heads)))
        for n, m in sizes:
            print(f"| {n} × {m} | " + " | ".join(f"{100 * value:.1f}%" for value in found[n, m][kind]) + " |")
    fewer = max(100, repeats // 4)
    print(f"\nTwo cells averaged over two levels: equal, or ±{EFFECT} apart ({fewer} sweeps each):\n")
    heads = [f"{size}: {what}" for size in ("equal", f"±{EFFECT}") for what in ("*depends on*", "better or worse")]
    heads += [f"{head}, seeds only" for head in heads[:2]]
    print("| seeds × examples | " + " | ".join(heads) + " |\n|:---|" + "---:|" * len(heads))
    for n, m in sizes[:8:2]:
        equal, apart = dependences(rng, n, m, 0.0, fewer), dependences(rng, n, m, EFFECT, fewer)
        row = [*equal[:2], *apart[:2], *equal[2:]]
        print(f"| {n} × {m} | " + " | ".join(f"{100 * value:.1f}%" for value in row) + " |")
    print(f"\nA cell at the best of 6 equal rates against an equal one at a single rate ({repeats} sweeps each):\n")
    heads = ["better, on test examples (ours)", "worse", "better, on the validation examples", "worse"]
    heads += ["better, on the validation examples over seeds only", "worse"]
    print("| seeds × examples | " + " | ".join(heads) + " |\n|:---|" + "---:|" * len(heads))
    for n, m in ((3, 64), (5, 64), (10, 64), (5, 400)):
        print(f"| {n} × {m} | " + " | ".join(f"{100 * value:.1f}%" for value in tuned(rng, n, m, repeats)) + " |")
    print(f"\nOne of two equal cells loses its worst seeds of 8, on 64 examples ({fewer} sweeps each):\n")
    print("| lost | plainly better (ours) | for seeds only |\n|---:|---:|---:|")
    for gone in (1, 2, 3):
        row = lost(rng, 8, 64, gone, fewer)
        print(f"| {gone} | " + " | ".join(f"{100 * value:.1f}%" for value in row) + " |")
