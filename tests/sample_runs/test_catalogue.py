"""The samples as a list: every script says what it has to, and can be changed by name."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from trainvitals.sample_runs.catalogue import PARAGRAPHS, Sample, sample, samples

EACH = [pytest.param(each, id=each.name) for each in samples()]


@pytest.mark.parametrize("each", EACH)
def test_a_script_says_its_claim_formula_paper_what_to_look_at_and_what_falsifies_it(each: Sample):
    assert tuple(each.words) == PARAGRAPHS
    assert all(len(text) > 20 for text in each.words.values())
    assert each.title.endswith(".")
    assert len(each.title) < 125


@pytest.mark.parametrize("each", EACH)
def test_a_script_has_train_claim_and_arms_that_train_takes(each: Sample):
    signature = inspect.signature(each.train)
    assert next(iter(signature.parameters)) == "seed"
    assert {"store", "name"} <= set(signature.parameters)
    assert all(p.default is not p.empty for p in signature.parameters.values())
    for settings in each.arms.values():
        assert set(settings) <= set(each.parameters)
    assert list(inspect.signature(each.claim).parameters) == ["runs"]
    assert each.num_seeds >= 3


@pytest.mark.parametrize("each", EACH)
def test_every_arm_is_recorded_and_small(each: Sample):
    assert set(each.recordings) == set(each.arms)
    assert max(path.stat().st_size for path in each.recordings.values()) <= 1 << 20


def test_numbers_and_names_are_different_and_all_recordings_together_are_small():
    assert len({each.number for each in samples()}) == len({each.name for each in samples()}) == len(samples())
    assert sum(path.stat().st_size for each in samples() for path in each.recordings.values()) <= 20 << 20


@pytest.mark.parametrize("name", ["grokking", "07", "07-grokking", "07_grokking.py", "sample_runs/07_grokking.py"])
def test_a_sample_is_found_by_name_number_and_file(name):
    assert sample(name).name == "grokking"


def test_an_unknown_sample_is_refused_with_near_names():
    with pytest.raises(ValueError, match="got 'groking'; did you mean grokking"):
        sample("groking")
    with pytest.raises(ValueError, match="sample list"):
        sample("zzz")


def test_settings_take_the_types_of_the_parameters():
    changed = sample("attention-logits").changed({"learning_rate": "0.03", "qk_norm": "true", "width": "16"})
    assert changed == {"learning_rate": 0.03, "qk_norm": True, "width": 16}
    with pytest.raises(ValueError, match="expected a parameter of the sample attention-logits, got 'lr'"):
        sample("attention-logits").changed({"lr": "1"})
    with pytest.raises(ValueError, match="expected a int such as 32, got 'wide'"):
        sample("attention-logits").changed({"width": "wide"})


def test_listing_the_samples_imports_no_torch():
    code = ("import sys\nfrom trainvitals.sample_runs.catalogue import samples\nassert samples()[0].title\n"
            "sys.exit('torch' in sys.modules)")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
