"""Rows, claims and settings of `benchmarks.meta_learners`, on hand-made runs."""

import dataclasses

import numpy as np
import pytest

from alphaopt_jax.meta import MetaConfig
from benchmarks.meta_learners import methods, plots, report, runs

_SETTING = methods.Setting(1e-2, 0.3)


def _run(method, seed, scores, seconds=(0.0, 10.0, 20.0)):
    steps = 1e6 * np.arange(len(scores))
    return runs.Run(method, _SETTING, seed, steps, np.array(seconds), np.array(scores))


def test_rows_hold_the_final_score_and_the_score_after_the_time_of_the_fastest():
    finished = [
        _run("slow", 0, (0.0, -2.0, -4.0), seconds=(0.0, 20.0, 40.0)),
        _run("slow", 1, (0.0, -1.0, -2.0), seconds=(0.0, 20.0, 40.0)),
        _run("fast", 0, (0.0, -1.0, -3.0)),
        _run("fast", 1, (0.0, -1.0, -3.0)),
    ]

    slow, fast = report.summarize(finished)

    assert (slow["score"], slow["score_at_equal_time"]) == (-3.0, -1.5)
    assert slow["interval"] == pytest.approx(12.7062, rel=1e-4)  # Student, one degree of freedom.
    assert (fast["score"], fast["score_at_equal_time"], fast["interval"]) == (-3.0, -3.0, 0.0)
    assert slow["seconds"] == 40.0
    assert slow["setting"] == "0.01 (edge), 0.3"
    assert [curve["seed"] for curve in fast["curves"]] == [0, 1]


def test_claims_hold_where_the_seeds_agree():
    ends = {
        methods.DIVIDED: (-3.0, -3.1),
        methods.SHARED: (-2.0, -2.1),
        methods.EVOLUTION: (-2.0, -3.0),
        methods.PERSISTENT: (-3.5, -3.6),
    }
    rows = report.summarize(
        [
            _run(name, seed, (0.0, 0.0, end))
            for name, scores in ends.items()
            for seed, end in enumerate(scores)
        ]
    )

    claims = {claim.name.split(".")[1]: claim for claim in report.make_claims(rows)}

    assert claims["divided_to_shared"].value == pytest.approx(-1.0)
    # Differences of -1 and -0.1: -0.55 and Student's 12.7062 times 0.45.
    assert claims["divided_to_openai_es"].value == pytest.approx(-0.55 + 12.7062 * 0.45, rel=1e-4)
    assert [claim.holds for claim in claims.values()] == [True, False, False]


def test_the_best_setting_on_another_seed_is_chosen(monkeypatch, tmp_path):
    asked = []

    def train(learner, setting, seed, episodes, folder):
        asked.append((seed, episodes))
        score = -abs(np.log(setting.learning_rate / 3e-3)) - 10 * setting.noise_std
        return dataclasses.replace(_run("any", seed, (0.0, 0.0, -score)), setting=setting)

    monkeypatch.setattr(runs, "train", train)

    chosen = runs.choose(methods.META_LEARNERS[-1], 50, tmp_path)

    assert chosen == methods.Setting(3e-3, 0.02)
    assert set(asked) == {(100, 50)}
    assert len(asked) == len(methods.META_LEARNERS[-1].settings)


@pytest.mark.parametrize("learner", methods.META_LEARNERS, ids=lambda each: each.slug)
def test_episodes_of_all_methods_have_the_same_number_of_steps(learner):
    config, method = learner.build(learner.settings[0])

    intervals = config.intervals_per_rollout * config.rollouts_per_episode
    assert intervals == MetaConfig().intervals_per_rollout
    assert config.rollouts_per_episode == learner.rounds_per_episode
    assert config.unknown_horizon_fraction == 0.0
    assert len(learner.settings) >= 3
    assert method.name in ("ppo", "openai_es", "persistent_es")
    assert config.ppo.learning_rate == learner.settings[0].learning_rate


def test_slugs_differ():
    assert len({each.slug for each in methods.META_LEARNERS}) == len(methods.META_LEARNERS)


def test_the_picture_has_a_line_for_each_method():
    rows = report.summarize(
        [_run(name, seed, (0.0, -1.0, -2.0)) for name in "ab" for seed in (0, 1)]
    )

    (panel,) = plots.learning_figure(rows, "env_steps", "millions of steps", scale=1e6).axes

    assert len(panel.lines) == 2
    assert panel.get_xlabel() == "millions of steps"
