"""What every condition owes its reader, checked by walking the folder."""

import re
from pathlib import Path

import pytest
from synthetic_series import facts

from trainvitals.schema import VerdictState
from trainvitals.verdicts.condition import Condition, Judgement, conditions
from trainvitals.verdicts.run_facts import Unmeasured

FOLDER = Path(__file__).parents[2] / "trainvitals" / "verdicts"
every_condition = pytest.mark.parametrize("condition", conditions(), ids=[c.id for c in conditions()])
OF_THE_DEFINITIONS = {
    "overfitting", "underfitting", "label_noise", "step_too_large", "step_too_small", "edge_of_stability",
    "loss_spikes", "dead_units", "plasticity_loss", "neural_collapse", "representation_collapse", "gradient_conflict",
    "gradient_starvation", "class_neglect", "weight_norm_growth", "attention_logit_growth", "softmax_collapse",
    "non_finite", "grokking_possible", "catastrophic_overfitting",
}  # fmt: skip


def test_every_condition_of_the_definitions_is_there_once():
    assert {condition.id for condition in conditions()} >= OF_THE_DEFINITIONS


@every_condition
def test_a_condition_stands_in_the_file_of_its_name_with_a_test_file(condition):
    assert type(condition).__module__.rsplit(".", 1)[1] == condition.id
    assert (Path(__file__).parent / f"test_{condition.id}.py").exists()


def test_every_module_of_the_folder_has_a_test_file():
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert modules - {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")} == set()


@every_condition
def test_a_condition_says_what_it_means_whence_and_what_to_try(condition):
    for words in (condition.title, condition.says, condition.source):
        assert words.strip()
    assert re.search(r"[.!?]$", condition.says)
    assert condition.reads
    assert len(condition.advice) >= 1
    for advice in condition.advice:
        assert advice.text.endswith(".")
        assert advice.source.strip()


@every_condition
def test_a_run_without_measurements_is_unknown(condition):
    with pytest.raises(Unmeasured) as error:
        condition.judge(facts({}, chance=False))
    assert all(error.value.missing)


def test_two_conditions_of_one_id_are_refused(monkeypatch):
    import trainvitals.verdicts.condition as module

    class One(Condition):
        id = "twice"

        def judge(self, run):
            return Judgement(VerdictState.HEALTHY, "")

    class Other(One):
        pass

    monkeypatch.setattr(module, "_discover", lambda: iter([One, Other]))
    with pytest.raises(ImportError, match="'twice' from both"):
        conditions.__wrapped__()
