import math

import numpy as np
import pandas as pd

from analysis.statistics.tuning import choose, tune


def group(scores: dict[float, list[float]], values: dict[float, list[float]] | None = None) -> pd.DataFrame:
    rows = []
    for rate, column in scores.items():
        for seed, score in enumerate(column):
            value = (values or scores)[rate][seed]
            rows.append({"rate": rate, "seed": str(seed), "score": score, "value": value})
    return pd.DataFrame(rows)


def test_choose_reports_each_half_of_the_seeds_at_the_rate_of_the_other():
    # Halves: seeds 0 and 2, seeds 1 and 3. Means on the even seeds: 0.5 and 2.0, so the odd ones get rate 0.1;
    # on the odd seeds: 9.0 and 1.0, so the even ones get rate 0.2.
    found = choose(group({0.1: [0.5, 9.0, 0.5, 9.0], 0.2: [2.0, 1.0, 2.0, 1.0], 0.4: [20.0] * 4}))
    assert found.values == {"0": 2.0, "1": 9.0, "2": 2.0, "3": 9.0}
    assert found.usual == 0.1


def test_choose_halves_seeds_in_the_order_of_numbers():
    scores = {0.1: [float(i % 2) for i in range(12)], 0.2: [float(1 - i % 2) for i in range(12)]}
    found = choose(group(scores))
    assert set(found.values.values()) == {1.0}


def test_choose_leaves_a_rate_that_diverges_in_the_other_half():
    found = choose(group({0.1: [1.0, 1.0, 1.0], 0.2: [0.5, 0.5, math.inf]}))
    assert found.values["1"] == 1.0
    assert found.values["0"] == 0.5


def test_choose_gives_no_value_to_a_seed_that_diverges_at_the_chosen_rate():
    scores = {0.1: [1.0, 1.0, 1.0], 0.2: [0.5, 0.5, math.inf]}
    values = {0.1: [1.0, 1.0, 1.0], 0.2: [0.5, 0.5, math.nan]}
    assert math.isnan(choose(group(scores, values)).values["2"])


def test_choose_learns_nothing_from_failed_trials():
    found = choose(group({0.1: [1.0] * 4, 0.2: [0.5, math.nan, 0.5, 0.5]}))
    assert found.values["0"] == 0.5


def test_choose_flags_a_single_seed_and_gives_no_value_where_all_diverged():
    assert choose(group({0.1: [1.0], 0.2: [2.0]})).peeked
    gone = choose(group({0.1: [math.inf, math.inf], 0.2: [math.inf, math.inf]}))
    assert math.isnan(gone.values["0"])
    assert math.isnan(gone.usual)


def test_tune_hands_on_a_cell_without_a_rate_as_it_is():
    rows = [("a", str(seed), rate, 1.0 + rate) for seed in range(4) for rate in (0.1, 0.2)]
    rows += [("none", str(seed), np.nan, 9.0) for seed in range(4)]
    frame = pd.DataFrame(rows, columns=["cell", "seed", "rate", "value"])
    found, choices = tune(frame.assign(trial=frame.index, score=frame["value"]), ["cell"])
    assert list(choices) == [("a",)]
    assert found.groupby("cell")["value"].agg(list).to_dict() == {"a": [1.1] * 4, "none": [9.0] * 4}
