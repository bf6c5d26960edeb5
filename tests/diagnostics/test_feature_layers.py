"""Any layers by name: their rows against outputs taken by hand, one pass for all, a reason for what is not there."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from fake_snapshot import FakeSnapshot
from hugging_face import LENGTHS, PRETRAINED, C, N, call
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Evaluation, Missing
from trainvitals.diagnostics.feature_layers import FeatureDiagnostic, FeatureView, is_per_token, rows_of
from trainvitals.diagnostics.feature_rank import EffectiveRank, FeatureSpectrum, effective_rank
from trainvitals.diagnostics.nearest_neighbours import distances, purity
from trainvitals.diagnostics.neural_collapse import SelfDuality
from trainvitals.diagnostics.registry import registered
from trainvitals.probes.activations import Capture
from trainvitals.probes.bystander import bystander

EVERY = [cls for cls in registered().values() if issubclass(cls, FeatureDiagnostic)]
BY_NAME = {case.name: case for case in CASES}
HF = {pretrained.name: pretrained for pretrained in PRETRAINED}


def built(name="cnn_batchnorm"):
    case = BY_NAME[name].build()
    return case, {"loss": case.loss, "batch": case.batch, "heldout": case.heldout}


def layers_of(case, x):
    """The layers of the convolutional case, by hand: positions averaged."""
    m = case.model.eval()
    first = torch.relu(m.bn1(m.conv1(x)))
    second = m.conv2(F.max_pool2d(first, 2))
    third = torch.relu(m.bn2(second))
    found = {"conv1": m.conv1(x), "bn1.relu": first, "conv2": second, "bn2.relu": third}
    return {name: h.mean((2, 3)).detach() for name, h in found.items()}


def by_hand(cls, case, name):
    """What the diagnostic gives for these rows as if they were a network's last features."""
    train, heldout = layers_of(case, case.batch[0]), layers_of(case, case.heldout[0])
    evaluations = [Evaluation(0.0, case.model(x).detach(), y, len(y)) for x, y in (case.batch, case.heldout)]
    return cls().measure(
        FakeSnapshot(
            features=train[name], heldout_features=heldout[name], train=evaluations[0], heldout=evaluations[1]
        )
    )


def flat(value):
    return np.asarray(value).reshape(-1).tolist()


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.name)
def test_each_diagnostic_gives_a_layer_what_it_gives_the_same_rows(cls):
    case, how = built()
    names = ["conv1", "bn1.relu", "conv2"]
    readings = tv.measure(case.model, what={cls.name: {"layers": names}}, **how)
    for metric, reading in readings.items():
        part = metric.removeprefix(f"{cls.name}.")
        wanted, reasons = {}, {}
        for name in names:
            try:
                found = by_hand(cls, case, name)
                found = found if not cls.parts else found[part]
                if found.missing is not None:
                    raise Missing(found.missing)
                wanted[name] = found
            except Missing as reason:
                reasons[name] = str(reason)
        if not wanted:
            assert reading.missing is not None, metric
            continue
        assert reading.value.tolist() == pytest.approx([v for r in wanted.values() for v in flat(r.value)], rel=1e-8)
        assert [key.split(" · ")[0] for key in reading.keys] == [n for n, r in wanted.items() for _ in flat(r.value)]
        assert set(reading.details.get("left_out", {})) == set(reasons)
        if all(r.error is not None for r in wanted.values()):
            assert reading.error.tolist() == pytest.approx([v for r in wanted.values() for v in flat(r.error)])


def test_one_name_gives_one_number_a_pattern_or_a_list_gives_keys():
    case, how = built()

    def measured(layers):
        return tv.measure(case.model, what={"rank.effective": {"layers": layers}}, **how)["rank.effective"]

    expected = effective_rank(torch.linalg.svdvals(layers_of(case, case.batch[0])["conv2"]))
    assert measured("conv2").value == pytest.approx(expected)
    assert measured("conv2").keys == ()
    assert measured(["conv2"]).keys == ("conv2",)
    assert measured("conv?").keys == ("conv1", "conv2")
    assert measured("*relu").keys == ("bn1.relu", "bn2.relu")
    assert measured(["fc", "bn*", "conv1"]).keys == ("conv1", "bn1", "bn1.relu", "bn2", "bn2.relu", "fc")
    last = tv.measure(case.model, what=["rank.effective"], **how)["rank.effective"].value
    assert measured(["last", "conv1"]).value[1] == pytest.approx(last)
    assert measured("last").value == pytest.approx(last)


def test_vectors_of_layers_are_keyed_by_layer_and_component():
    case, how = built()
    what = {"features.spectrum": {"layers": ["conv1", "conv2"], "num": 2}}
    reading = tv.measure(case.model, what=what, **how)["features.spectrum"]
    assert reading.keys == ("conv1 · 1", "conv1 · 2", "conv2 · 1", "conv2 · 2")
    deviations = np.linalg.svd(np.cov(layers_of(case, case.batch[0])["conv2"].numpy().T, bias=True))[1] ** 0.5
    assert reading.value[2:].tolist() == pytest.approx(deviations[:2])


def test_a_name_that_matches_nothing_is_missing_with_near_names():
    case, how = built()
    readings = tv.measure(case.model, what={"rank": {"layers": ["cnov1", "blocks.*"]}}, **how)
    for reading in readings.values():
        assert reading.missing.startswith("cnov1: no layer has this name; near ones are conv1")
        assert "blocks.*: no layer has this name" in reading.missing
    partly = tv.measure(case.model, what={"rank": {"layers": ["conv1", "blocks.*"]}}, **how)["rank.effective"]
    assert partly.keys == ("conv1",)
    assert set(partly.details["left_out"]) == {"blocks.*"}
    group = tv.measure(case.model, what={"nc": {"layers": "nonsense"}}, **how)
    del group["nc.plane"]  # of the last layer alone
    assert all("no layer has this name" in reading.missing for reading in group.values())


def test_layers_have_no_classifier_but_the_last():
    case, how = built()
    readings = tv.measure(case.model, what={"nc3": {"layers": ["conv1", "last"]}}, **how)
    assert readings["nc3"].keys == ("last",)
    assert "no classifier reads this layer" in readings["nc3"].details["left_out"]["conv1"]
    assert inspect.isabstract(FeatureDiagnostic)
    assert SelfDuality.needs  # a diagnostic of features all the same: the group "nc" takes one option


def test_layers_share_the_one_forward_pass():
    case, how = built()
    calls = []
    case.model.forward = lambda x, forward=case.model.forward: (calls.append(len(x)), forward(x))[1]
    tv.measure(case.model, what={"rank": {"layers": "conv*"}, "nc": {"layers": "bn*"}, "oui": {}}, **how)
    both = {"probe.knn": {"layers": "conv*"}, "knn_purity": {"layers": "bn?"}}
    without = len(calls)
    tv.measure(case.model, what=both, **how)
    checks = 2 + 2  # of the train and of the held-out batch, that they fit and repeat
    assert without == checks + 1
    assert len(calls) - without == checks + 2


@pytest.mark.parametrize("wrong", [3, [], [3], "", ["conv1", ""]])
def test_layers_that_are_no_names_are_refused(wrong):
    with pytest.raises(ValueError, match="expected names of layers or patterns of them, got layers="):
        EffectiveRank(layers=wrong)


def test_options_of_one_s_own_are_still_checked():
    with pytest.raises(ValueError, match="num=0"):
        FeatureSpectrum(num=0, layers=["a"])


def test_batches_are_joined_and_layers_that_differ_in_shape_between_them_say_so():
    case, how = built("uneven")
    joined = tv.measure(case.model, what={"rank": {"layers": ["0", "1"]}}, **how)
    split = tv.measure(case.model, what={"rank": {"layers": ["0", "1"]}}, **(how | {"batch": case.batches}))
    for name, reading in joined.items():
        assert split[name].value.tolist() == pytest.approx(reading.value.tolist(), rel=1e-9)
    model = nn.Sequential(nn.Conv1d(1, 2, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(2, 3))
    batches = [(torch.randn(4, 1, size), torch.arange(4) % 3) for size in (5, 6)]
    what = {"rank.effective": {"layers": ["0", "2"]}}
    reading = tv.measure(model, loss=F.cross_entropy, batch=batches, what=what)["rank.effective"]
    assert reading.keys == ("2",)
    assert "differ in shape between the probe's batches" in reading.details["left_out"]["0"]


def captured(model, *args, layers, **kwargs):
    capture = Capture(model, activations=False, features=False, layers=layers)
    with bystander(model), torch.no_grad(), capture.capturing(N):
        model(*args, **kwargs)
    return capture.collected("layers")


def test_patches_of_a_vision_transformer_are_places_not_units():
    vit = HF["vit eager"]
    model, batch = vit.model(), vit.batch()
    found = captured(model, batch["pixel_values"], layers=["*patch_embeddings", "*projection"])
    assert [tuple(h.shape) for h in found.values()] == [(N, 2, 2, 8), (N, 4, 8)]


def test_the_hidden_states_of_a_model_for_whole_texts_are_averaged_without_padding():
    bert = HF["bert eager"]
    model, batch = bert.model(), bert.batch()
    hidden = model(**batch, output_hidden_states=True).hidden_states[1].detach()  # (N, T, D)
    expected = torch.stack([hidden[i, : LENGTHS[i]].mean(0) for i in range(N)])
    what = {"rank.effective": {"layers": "bert.encoder.layer.0"}, "knn_purity": {"k": 2, "layers": "*layer.0"}}
    readings = tv.measure(model, forward=call, batch=batch, what=what)
    assert readings["rank.effective"].value == pytest.approx(effective_rank(torch.linalg.svdvals(expected)))
    distance = torch.cdist(expected, expected).fill_diagonal_(torch.inf)
    y = torch.arange(N) % C
    share = np.mean([(y[distance[i].topk(2, largest=False).indices] == y[i]).double().mean() for i in range(N)])
    assert readings["knn_purity"].value.tolist() == pytest.approx([share])


@pytest.mark.parametrize("name", ["gpt2 sdpa", "llama eager"])
def test_each_token_with_a_target_is_a_row_of_a_language_model(name):
    model, batch = HF[name].model(), HF[name].batch()
    hidden = model(**batch, output_hidden_states=True).hidden_states  # after each block, the last one normalised
    kept = batch["labels"][:, 1:] != -100  # the next token has a target
    rows = hidden[-1][:, :-1][kept].detach()
    labels = batch["labels"][:, 1:][kept]
    what = {"rank.effective": {}, "knn_purity": {"k": 3}}
    readings = tv.measure(model, forward=call, batch=batch, what=what)
    assert readings["rank.effective"].value == pytest.approx(effective_rank(torch.linalg.svdvals(rows)))
    d = distances(rows, rows).fill_diagonal_(torch.inf)  # the same first tokens lie equally far
    assert readings["knn_purity"].value == pytest.approx(purity(d, labels, 3))
    block = "transformer.h.0.mlp" if "gpt2" in name else "model.layers.0.mlp"
    inner = tv.measure(model, forward=call, batch=batch, what={"rank.participation": {"layers": block}})
    assert inner["rank.participation"].missing is None


def test_rows_without_labels_are_the_tokens_that_count():
    h = torch.arange(24.0).view(3, 4, 2)
    outputs, y = torch.randn(3, 4, 5), torch.tensor([[1, 2, -100, -100], [0, 0, 0, -100], [4, 3, 2, 1]])
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[2, 0] = False
    unknown_pairing = Evaluation(123.0, outputs, y, 3, mask)
    kept = (y != -100) & mask
    assert rows_of(h, unknown_pairing).tolist() == h[kept].tolist()
    assert rows_of(h, Evaluation(1.0, outputs, None, 3)).tolist() == h.flatten(0, 1).tolist()
    whole = Evaluation(1.0, torch.randn(3, 5), torch.tensor([0, 1, 2]), 3, mask)
    assert rows_of(h, whole)[2].tolist() == pytest.approx(h[2, 1:].mean(0).tolist())
    assert not is_per_token((3, 4), whole)


def test_features_without_tokens_have_no_labels_of_tokens():
    z, y = torch.randn(6, 4, 5), torch.randint(5, (6, 4))
    loss = F.cross_entropy(z.flatten(0, 1), y.flatten()).item()
    view = FeatureView(FakeSnapshot(features=torch.randn(6, 3), train=Evaluation(loss, z, y, 6)), None)
    with pytest.raises(Missing, match="targets are one a token"):
        view.labels()
    assert view.features.shape == (6, 3)


def test_pixels_are_rows_where_outputs_and_targets_are_one_a_pixel():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)).double()
    x, y = torch.randn(5, 1, 4, 4).double(), torch.arange(80).view(5, 4, 4) % 3
    what = {"nc1": {"layers": "1"}}
    reading = tv.measure(model, loss=F.cross_entropy, batch=(x, y), what=what)["nc1"]
    rows = model[:2](x).detach().movedim(1, -1).flatten(0, 2)
    snapshot = FakeSnapshot(features=rows, train=Evaluation(0.0, torch.zeros(80, 3), y.flatten(), 80))
    assert reading.value == pytest.approx(registered()["nc1"]().measure(snapshot).value)


def test_work_of_a_layer_is_shared_and_its_reason_is_repeated():
    calls = []

    def undefined(view):
        calls.append(1)
        raise Missing("because")

    view = FeatureView(FakeSnapshot(), None)
    for _ in range(2):
        with pytest.raises(Missing, match="because"):
            view.once(undefined)
    assert len(calls) == 1
