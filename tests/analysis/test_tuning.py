import math

import pandas as pd

from analysis.tuning import choose


def group(scores: dict[float, list[float]], values: dict[float, list[float]] | None = None) -> pd.DataFrame:
    rows = []
    for rate, column in scores.items():
        for seed, score in enumerate(column):
            value = (values or scores)[rate][seed]
            rows.append({"rate": rate, "seed": str(seed), "score": score, "value": value})
    return pd.DataFrame(rows)


def test_each_seed_is_reported_at_the_rate_the_others_chose():
    # Without seed 0: means 0.5 and 1.0, so seed 0 is reported at rate 0.1 although 0.2 suits it better.
    found = choose(group({0.1: [9.0, 0.5, 0.5], 0.2: [0.0, 1.0, 1.0], 0.4: [20.0, 20.0, 20.0]}))
    assert found.values["0"] == 9.0
    # Without seed 1: means 4.75 and 0.5, so seeds 1 and 2 are reported at rate 0.2.
    assert (found.values["1"], found.values["2"]) == (1.0, 1.0)
    assert found.usual == 0.2
    assert not found.edge


def test_a_rate_that_diverges_elsewhere_is_not_chosen():
    found = choose(group({0.1: [1.0, 1.0, 1.0], 0.2: [0.5, 0.5, math.inf]}))
    assert [found.values[s] for s in "01"] == [1.0, 1.0]
    assert found.edge


def test_the_seed_that_diverges_at_the_chosen_rate_has_no_value():
    scores = {0.1: [1.0, 1.0, 1.0], 0.2: [0.5, 0.5, math.inf]}
    values = {0.1: [1.0, 1.0, 1.0], 0.2: [0.5, 0.5, math.nan]}
    assert math.isnan(choose(group(scores, values)).values["2"])


def test_failed_trials_say_nothing_about_their_rate():
    found = choose(group({0.1: [1.0, 1.0, 1.0], 0.2: [0.5, math.nan, 0.5]}))
    assert found.values["0"] == 0.5


def test_a_single_seed_is_flagged_and_all_diverged_has_no_value():
    assert choose(group({0.1: [1.0], 0.2: [2.0]})).peeked
    gone = choose(group({0.1: [math.inf, math.inf], 0.2: [math.inf, math.inf]}))
    assert math.isnan(gone.values["0"])
    assert math.isnan(gone.usual)
