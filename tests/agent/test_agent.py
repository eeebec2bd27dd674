"""Agents are saved and loaded unchanged, and what is not an agent is refused with the reason."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import alphaopt_jax as alphaopt
from alphaopt_jax._agent import agent as agent_lib


def _agent(seed: int = 0) -> alphaopt.Agent:
    state = alphaopt.alphaopt(agent=None, seed=seed).init(jnp.zeros(3))
    return alphaopt.agent_from_state(state)


def test_round_trip(tmp_path):
    agent = dataclasses.replace(
        _agent(), max_log_rate=3.0, inverse_sqrt_steps=30.0, update_direction="gradient"
    )

    alphaopt.save_agent(tmp_path / "a.safetensors", agent)
    loaded = alphaopt.load_agent(tmp_path / "a.safetensors")

    jax.tree.map(np.testing.assert_array_equal, dict(agent.params), dict(loaded.params))
    assert dataclasses.replace(loaded, params=agent.params) == agent


def test_digest_is_that_of_a_saved_and_loaded_agent(tmp_path):
    alphaopt.save_agent(tmp_path / "a.safetensors", _agent())

    found = agent_lib.digest(alphaopt.load_agent(tmp_path / "a.safetensors"))

    assert found == agent_lib.digest(_agent())
    assert len(found) == 16


def test_digest_tells_parameters_and_constants_apart():
    agent = _agent()
    params = jax.tree.map(np.array, dict(agent.params))
    params["actor"]["hidden"]["kernel"][0, 0] += 1e-6
    agents = [
        agent,
        _agent(seed=1),
        dataclasses.replace(agent, params=params),
        dataclasses.replace(agent, max_log_rate=3.0),
        dataclasses.replace(agent, inverse_sqrt_steps=30.0),
        dataclasses.replace(agent, update_direction="gradient"),
    ]

    assert len({agent_lib.digest(each) for each in agents}) == len(agents)


def test_digest_of_the_pretrained_agent_is_as_stored_runs_have_it():
    assert agent_lib.digest(alphaopt.load_agent("base")) == "9016252ca8c9df69"


def test_a_path_can_be_given_to_alphaopt_and_is_frozen(tmp_path):
    agent = _agent(3)
    alphaopt.save_agent(tmp_path / "a.safetensors", agent)

    state = alphaopt.alphaopt(agent=tmp_path / "a.safetensors").init(jnp.zeros(3))

    assert state.learner is None
    kept = alphaopt.agent_from_state(state).params
    jax.tree.map(np.testing.assert_array_equal, kept, dict(agent.params))


def test_what_belongs_to_an_agent_comes_out_of_the_optimizer_with_it():
    agent = dataclasses.replace(
        _agent(1), max_log_rate=3.5, inverse_sqrt_steps=40.0, update_direction="gradient"
    )
    tx = alphaopt.alphaopt(agent=agent, learn=True)

    state = alphaopt.new_episode(tx.init(jnp.zeros(3)))

    found = alphaopt.agent_from_state(state)
    jax.tree.map(np.testing.assert_array_equal, dict(found.params), dict(agent.params))
    assert dataclasses.replace(found, params=agent.params) == agent


def test_an_agent_that_says_nothing_of_time_keeps_its_rates(tmp_path):
    agent = dataclasses.replace(_agent(), inverse_sqrt_steps=7.0)
    alphaopt.save_agent(tmp_path / "a.safetensors", agent)
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        metadata = {
            name: text for name, text in file.metadata().items() if name != "inverse_sqrt_steps"
        }
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.numpy.save_file(arrays, tmp_path / "b.safetensors", metadata)

    assert alphaopt.load_agent(tmp_path / "b.safetensors").inverse_sqrt_steps == math.inf


@pytest.mark.parametrize("steps", [0.0, -1.0, math.nan])
def test_rates_that_begin_to_fall_before_the_start_are_refused(steps):
    with pytest.raises(ValueError, match=r"`inverse_sqrt_steps`.*must be above zero"):
        dataclasses.replace(_agent(), inverse_sqrt_steps=steps)


def test_a_missing_one_is_named():
    with pytest.raises(FileNotFoundError, match=r"No agent 'nobody'.*agent=None"):
        alphaopt.load_agent("nobody")


def test_another_contract_is_refused(tmp_path):
    agent = _agent()
    object.__setattr__(agent, "contract", 99)
    alphaopt.save_agent(tmp_path / "a.safetensors", agent)

    with pytest.raises(ValueError, match="observes by contract 99"):
        alphaopt.load_agent(tmp_path / "a.safetensors")


def test_what_is_not_safetensors_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"not an agent at all")

    with pytest.raises(ValueError, match="is not a safetensors file"):
        alphaopt.load_agent(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 200, -1], ids="{} bytes".format)
def test_what_is_cut_off_is_refused(kept, tmp_path):
    alphaopt.save_agent(tmp_path / "whole.safetensors", _agent())
    whole = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:kept])

    with pytest.raises(ValueError, match=r"a\.safetensors' is not a safetensors file"):
        alphaopt.load_agent(tmp_path / "a.safetensors")


def test_foreign_safetensors_are_refused(tmp_path):
    safetensors.numpy.save_file({"w": np.zeros(3, np.float32)}, tmp_path / "a.safetensors")

    with pytest.raises(ValueError, match="but not an agent"):
        alphaopt.load_agent(tmp_path / "a.safetensors")


def test_arrays_that_do_not_fit_the_contract_are_named():
    params = jax.tree.map(jnp.array, dict(_agent().params))
    params["actor"]["hidden"]["kernel"] = jnp.zeros((4, 8))

    with pytest.raises(ValueError, match=r"do not fit observation contract.*actor/hidden/kernel"):
        alphaopt.Agent(params)


def test_parameters_of_something_else_are_refused():
    with pytest.raises(ValueError, match="actor and a critic"):
        alphaopt.Agent({"dense": {"kernel": jnp.zeros((2, 2))}})
