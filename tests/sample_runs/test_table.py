"""The document of the phenomena says what was kept, and nothing else."""

from __future__ import annotations

from trainvitals.sample_runs.catalogue import samples
from trainvitals.sample_runs.nightly import TABLE, outcomes
from trainvitals.sample_runs.table import WANTED, markdown, spread


def test_the_document_is_what_the_outcomes_say():
    hint = "run: python -m trainvitals.sample_runs.nightly --table-only"
    assert TABLE.read_text(encoding="utf-8") == markdown(outcomes()), hint


def test_every_sample_was_run_over_its_seeds():
    kept = outcomes()
    assert set(kept) == {each.name for each in samples()}
    for each in samples():
        assert [seed["seed"] for seed in kept[each.name]["seeds"]] == list(range(each.num_seeds))


def test_every_sample_stands_for_a_phenomenon_of_the_list_and_the_others_are_named_as_not_built():
    assert {name for name in WANTED.values() if name} == {each.name for each in samples()}
    text = markdown({})
    assert all(f"- {words}" in text for words, name in WANTED.items() if name is None)


def test_an_effect_that_is_not_there_in_a_seed_is_told():
    seeds = [{"seed": s, "shown": s > 0, "effect": float(s), "seconds": 1.0, "figures": {"a": s}} for s in range(3)]
    text = markdown({samples()[0].name: {"effect_is": "the size", "seeds": seeds}})
    assert "| 2 of 3 seeds | the size: 1 (0 to 2) | 1 |" in text


def test_a_spread_names_the_range_and_what_never_came():
    assert spread([1.0, 2.0, 6.0]) == "3 (1 to 6)"
    assert spread([0.5]) == "0.5"
    assert spread([12345.0, 12345.4]) == "12,345"
    assert spread(["inf", "inf"]) == "never"
