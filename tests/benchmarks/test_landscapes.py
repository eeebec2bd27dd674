"""Steps, rates and claims of `benchmarks.landscapes`, on hand-made runs."""

import jax
import numpy as np

from alphaopt_jax.tasks.landscapes import LANDSCAPES
from benchmarks.landscapes import episodes, report, runs


def _episode(losses):
    losses = np.asarray(losses, np.float32)
    return episodes.Episode(points=None, losses=losses, rates=None, rewards=None)


def test_steps_to_target_is_the_first_step_within_it_or_all_steps():
    losses = np.array(
        [
            [9.0, 1e-4, 5.0, 1e-4],  # Reaches the target and leaves it again.
            [9.0, 2e-3, 2e-3, 9e-4],
            [9.0, np.nan, np.inf, 2e-3],
            [0.0, 1.0, 1.0, 1.0],
        ]
    )

    steps = episodes.steps_to_target(LANDSCAPES["bowl"], losses)

    np.testing.assert_array_equal(steps, [1, 3, 3, 0])


def test_gap_is_infinite_where_the_loss_is_not_finite():
    found = episodes.gaps(LANDSCAPES["saddle"], np.array([-0.25, 1.0, np.nan, np.inf]))

    np.testing.assert_array_equal(found, [0.0, 1.25, np.inf, np.inf])


def test_best_rate_is_the_fastest_that_stays_or_else_the_lowest_final_loss():
    bowl = LANDSCAPES["bowl"]

    fastest_that_stays = [[9, 0, 0, 9], [9, 9, 0, 0], [9, 9, 9, 0]]
    lowest_end = [[9, 9, 9, np.nan], [9, 9, 9, 3], [9, 0, 9, 4]]

    assert runs.best_rate(bowl, _episode(fastest_that_stays)) == 1
    assert runs.best_rate(bowl, _episode(lowest_end)) == 1


def test_claims_do_not_count_landscapes_of_many_minima():
    def row(kind, reached, stays, helped):
        steps = {"adam_tuned_steps": 50, "steps_last": 40 if helped else 60, "pretrained_last": 49}
        outcome = {"kind": kind, "reached": reached, "stays": stays, "learning_helps": helped}
        return outcome | steps

    def rows(reached, stays, helped):
        return [
            row(kind, i < reached, i < stays, i < helped)
            for i, kind in enumerate(["unimodal"] * 6 + ["few minima"] * 3)
        ] + [row("multimodal", True, True, True)]

    good = report.make_claims(rows(9, 9, 5))
    bad = report.make_claims(rows(8, 7, 4))

    assert [(claim.value, claim.bar, claim.holds) for claim in good] == [
        (9, ">= 9", True),
        (9, ">= 9", True),
        (5, ">= 5", True),
        (5, ">= 7", False),  # Fewer steps than a tuned Adam.
        (9, ">= 7", True),
    ]
    assert [(claim.value, claim.holds) for claim in bad[:3]] == [(8, False), (7, False), (4, False)]


def test_stopped_and_whole_episodes_agree_up_to_the_target_and_repeat_exactly():
    bowl = LANDSCAPES["bowl"]
    steps = 1500
    whole = episodes.AgentRunner(learn=False, num_steps=steps, stop_at_target=False)
    stopped = episodes.AgentRunner(learn=False, num_steps=steps, stop_at_target=True)

    states, once = whole.run(bowl, whole.init(bowl, [0, 1]))
    _, again = whole.run(bowl, whole.new_episode(states))
    _, short = stopped.run(bowl, stopped.init(bowl, [0, 1]))
    reached_at = episodes.steps_to_target(bowl, once.losses)

    assert once.points.shape == (2, steps + 1, 2)
    assert (reached_at < steps).all()
    np.testing.assert_array_equal(reached_at, episodes.steps_to_target(bowl, short.losses))
    np.testing.assert_allclose(
        once.points[0, : reached_at[0] + 1], short.points[0, : reached_at[0] + 1], rtol=1e-6
    )
    np.testing.assert_array_equal(short.points[0, reached_at[0] :] - short.points[0, -1], 0.0)
    jax.tree.map(np.testing.assert_array_equal, once, again)  # Without learning nothing is random.
