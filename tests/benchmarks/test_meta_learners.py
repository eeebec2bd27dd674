"""The bookkeeping of the benchmark "meta_learners", on hand-made runs."""

import dataclasses

import numpy as np
import pytest

from alphaopt_jax.meta import MetaConfig
from benchmarks.meta_learners import __main__ as benchmark

_SETTING = benchmark.Setting(1e-2, 0.3)


def _run(method, seed, scores, seconds=(0.0, 10.0, 20.0)):
    steps = 1e6 * np.arange(len(scores))
    return benchmark.Run(method, _SETTING, seed, steps, np.array(seconds), np.array(scores))


def test_rows_hold_the_score_at_the_end_and_at_the_time_that_the_quickest_takes():
    runs = [
        _run("slow", 0, (0.0, -2.0, -4.0), seconds=(0.0, 20.0, 40.0)),
        _run("slow", 1, (0.0, -1.0, -2.0), seconds=(0.0, 20.0, 40.0)),
        _run("quick", 0, (0.0, -1.0, -3.0)),
        _run("quick", 1, (0.0, -1.0, -3.0)),
    ]

    slow, quick = benchmark.summarize(runs)

    assert (slow["score"], slow["score_at_equal_time"]) == (-3.0, -1.5)
    assert slow["interval"] == pytest.approx(12.7062, rel=1e-4)  # Student, one degree of freedom.
    assert (quick["score"], quick["score_at_equal_time"], quick["interval"]) == (-3.0, -3.0, 0.0)
    assert slow["seconds"] == 40.0
    assert slow["setting"] == "0.01 (edge), 0.3"
    assert [curve["seed"] for curve in quick["curves"]] == [0, 1]


def test_claims_hold_where_the_seeds_agree():
    ends = {
        benchmark.DIVIDED: (-3.0, -3.1),
        benchmark.SHARED: (-2.0, -2.1),
        benchmark.EVOLUTION: (-2.0, -3.0),
        benchmark.PERSISTENT: (-3.5, -3.6),
    }
    rows = benchmark.summarize(
        [
            _run(name, seed, (0.0, 0.0, end))
            for name, scores in ends.items()
            for seed, end in enumerate(scores)
        ]
    )

    claims = {claim.name.split(".")[1]: claim for claim in benchmark.make_claims(rows)}

    assert claims["divided_to_shared"].value == pytest.approx(-1.0)
    # Differences of -1 and -0.1: -0.55 and Student's 12.7062 times 0.45.
    assert claims["divided_to_openai_es"].value == pytest.approx(-0.55 + 12.7062 * 0.45, rel=1e-4)
    assert [claim.holds for claim in claims.values()] == [True, False, False]


def test_the_best_setting_on_another_seed_is_chosen(monkeypatch, tmp_path):
    asked = []

    def train(contender, setting, seed, episodes, folder):
        asked.append((seed, episodes))
        score = -abs(np.log(setting.learning_rate / 3e-3)) - 10 * setting.exploration
        return dataclasses.replace(_run("any", seed, (0.0, 0.0, -score)), setting=setting)

    monkeypatch.setattr(benchmark, "train", train)

    chosen = benchmark.choose(benchmark.CONTENDERS[-1], 50, tmp_path)

    assert chosen == benchmark.Setting(3e-3, 0.02)
    assert set(asked) == {(100, 50)}
    assert len(asked) == len(benchmark.CONTENDERS[-1].settings)


@pytest.mark.parametrize("contender", benchmark.CONTENDERS, ids=lambda each: each.slug)
def test_all_make_as_many_steps_in_an_episode(contender):
    config, method = contender.make(contender.settings[0])

    intervals = config.rollout_length * config.rollouts_per_episode
    assert intervals == MetaConfig().rollout_length
    assert config.rollouts_per_episode == contender.rounds_per_episode
    assert config.unknown_horizon == 0.0
    assert len(contender.settings) >= 3
    assert method.name in ("ppo", "openai_es", "persistent_es")
    assert config.learning_rate == contender.settings[0].learning_rate


def test_slugs_differ():
    assert len({each.slug for each in benchmark.CONTENDERS}) == len(benchmark.CONTENDERS)
