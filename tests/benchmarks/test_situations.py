"""Rows, claims and table of the reported situations, and their outcomes."""

import json

import pytest

from benchmarks.common import results
from benchmarks.robustness.situations import catalog, report
from benchmarks.robustness.situations.catalog import SITUATIONS, Situation
from benchmarks.robustness.situations.trainings import Figure


@pytest.mark.nightly
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_the_situation_has_its_right_outcome(situation):
    row = report.run(situation)

    assert row["holds"], row["now"]


def test_every_kind_has_a_source_and_names_are_unique():
    assert SITUATIONS[0].source
    assert len({situation.name for situation in SITUATIONS}) == len(SITUATIONS)
    assert sum(not situation.source for situation in SITUATIONS) >= 15


def _raises():
    raise TypeError("types differ")


_GOOD = Situation("good", "jax 1", "<= 0.1", "NaN", lambda: Figure(0.05, "within 0.05"))
_BAD = Situation("bad", "", "<= 0.1", "", lambda: Figure(0.2, "within 0.2"))
_RAISES = Situation("raises", "", "<= 0.1", "", _raises)


def test_a_row_has_the_outcome_and_an_error_is_one():
    rows = [report.run(situation) for situation in (_GOOD, _BAD, _RAISES)]

    assert [row["holds"] for row in rows] == [True, False, False]
    assert rows[0]["figure"] == 0.05
    assert rows[2]["now"] == "raises TypeError"
    (claim,) = report.make_claims([{"fault": "another row"}, *rows])
    assert (claim.value, claim.holds) == (2, False)
    table = report.table([{"fault": "another row"}, *rows])
    assert "| good | jax 1 | NaN | within 0.05 | 0.05 | <= 0.1 | yes |" in table
    assert "| raises | of the same kind |" in table
    assert "another row" not in table


def test_situations_are_replaced_and_other_results_kept(tmp_path, monkeypatch):
    other = results.Claim("robustness.lost", "lost", 0, "== 0")
    results.write(
        "robustness",
        rows=[{"fault": "one"}],
        claims=[other],
        seeds=[0, 1],
        command="command",
        folder=tmp_path,
    )
    page = tmp_path / "robustness.md"
    page.write_text("# Faults\n\nTable.\n")

    for situation in (_BAD, _GOOD):
        monkeypatch.setattr(report, "SITUATIONS", (situation,))
        report.replace(tmp_path)

    content = json.loads((tmp_path / "robustness.json").read_text())
    assert [row.get("situation", row.get("fault")) for row in content["rows"]] == ["one", "good"]
    assert [claim["name"] for claim in content["claims"]] == ["robustness.lost", report.CLAIM]
    assert [claim["holds"] for claim in content["claims"]] == [True, True]
    assert content["seeds"] == [0, 1]
    text = page.read_text()
    assert text.startswith("# Faults\n\nTable.\n\n## Reported situations")
    assert text.count(report.HEADING) == 1
    assert "| good |" in text
    assert "| bad |" not in text


def test_a_section_is_replaced_between_others():
    page = f"# Page\n\n{report.HEADING}\n\nold\n\n## Next\n\ntext\n"

    assert report.with_section(page, f"{report.HEADING}\n\nnew\n") == (
        f"# Page\n\n## Next\n\ntext\n\n{report.HEADING}\n\nnew\n"
    )


def test_gradients_of_the_catalog_are_of_all_modes():
    figure = catalog._close(lambda mode: float(len(mode)), "{}")()

    assert figure.value == len("from scratch")
