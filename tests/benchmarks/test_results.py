"""The results file, and claims, which hold exactly if their value meets their bar."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import claims
from benchmarks.common import results
from benchmarks.common.results import Claim


@pytest.mark.parametrize(
    ("value", "bar", "holds"),
    [
        (0.989, ">= 0.989", True),
        (0.988, ">= 0.989", False),
        (1.0, "> 1", False),
        (1.0, "<= 1e0", True),
        (2, "< 1.5", False),
        (9, "== 9", True),
        (float("nan"), ">= 0", False),
        (float("nan"), "<= 0", False),
        (float("inf"), "<= 3", False),
        (np.float32(0.5), ">= 0.5", True),
        (jnp.float32(0.5), ">= 0.6", False),
    ],
)
def test_claim_holds_when_its_value_meets_its_bar(value, bar, holds):
    assert Claim("some.claim", "a text", value, bar).holds is holds


@pytest.mark.parametrize("bar", ["", "0.989", ">=0.989", "=> 1", ">= much", ">= 1 2"])
def test_unreadable_bar_is_refused(bar):
    with pytest.raises(ValueError, match="A bar is a comparison and a number"):
        Claim("some.claim", "a text", 1.0, bar)


def _write(folder, *given):
    rows = [{"a": np.arange(2), "b": jnp.float32(1.5), "c": float("inf"), "d": True, "e": "x"}]
    return results.write(
        "demo", rows=rows, claims=given, seeds=range(2), command="do it", folder=folder
    )


def test_file_has_the_documented_fields_and_plain_values(tmp_path):
    path = _write(tmp_path / "new", Claim("demo.good", "it is good", np.float64(2.0), ">= 1"))

    content = json.loads(path.read_text())

    assert path.name == "demo.json"
    assert list(content) == [
        "benchmark", "command", "date", "versions", "hardware", "seeds", "rows", "claims",
    ]  # fmt: skip
    assert content["benchmark"] == "demo"
    assert content["command"] == "do it"
    assert content["seeds"] == [0, 1]
    assert content["rows"] == [{"a": [0, 1], "b": 1.5, "c": None, "d": True, "e": "x"}]
    assert content["claims"] == [
        {"name": "demo.good", "text": "it is good", "value": 2.0, "bar": ">= 1", "holds": True}
    ]
    assert {"python", "jax", "optax"} <= set(content["versions"])
    assert "CPU core" in content["hardware"]


def test_command_ends_with_1_exactly_if_a_claim_fails_or_none_is_made(tmp_path):
    good, bad = Claim("demo.good", "", 2.0, ">= 1"), Claim("demo.bad", "", 0.0, ">= 1")

    assert claims.main(claims.Arguments(tmp_path)) == 1
    _write(tmp_path, good)
    assert claims.main(claims.Arguments(tmp_path)) == 0
    _write(tmp_path, good, bad)
    assert claims.main(claims.Arguments(tmp_path)) == 1


def test_claim_that_could_not_be_measured_does_not_hold(tmp_path):
    _write(tmp_path, Claim("demo.unknown", "", float("nan"), "<= 1"))

    (claim,) = results.read_claims(tmp_path)

    assert claim["value"] is None
    assert claim["holds"] is False


def test_an_edited_verdict_does_not_count(tmp_path):
    path = _write(tmp_path, Claim("demo.bad", "", 0.0, ">= 1"))
    path.write_text(path.read_text().replace("false", "true"))

    (claim,) = results.read_claims(tmp_path)

    assert claim["holds"] is False


def test_markdown_table():
    rows = [{"a": 1, "b": 0.12345, "c": "x"}, {"a": 2, "b": float("inf")}]

    table = results.markdown_table(rows, {"a": "A", "b": "the b"})

    assert table == "| A | the b |\n| --- | --- |\n| 1 | 0.123 |\n| 2 | – |\n"
