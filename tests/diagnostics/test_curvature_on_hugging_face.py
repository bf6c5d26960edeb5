"""Hugging Face models by `forward=` with dict batches: curvature against the dense Hessian, and no trace left."""

import copy
import functools
import math

import numpy as np
import pytest
import torch
from hugging_face import LENGTHS, PRETRAINED, call
from model_zoo import dense_hessian_of

import trainvitals as tv
from trainvitals.probes.bystander import bystander
from trainvitals.probes.snapshot import ModelSnapshot
from trainvitals.probes.subject import make_subject

CURVATURE = ["hessian.top", "hessian.bottom", "hessian.trace"]
SPLIT_EQUALS_WHOLE = ["loss.train", "gap.loss", "grad.norm", "hessian.top"]
FAST = "llama sdpa"  # one of them; the import alone takes seconds

every_model = pytest.mark.parametrize(
    "entry", [pytest.param(e, id=e.name, marks=[] if e.name == FAST else [pytest.mark.slow]) for e in PRETRAINED]
)


@functools.cache
def dense(entry, mode):
    return dense_hessian_of(entry.model(), entry.batch(), forward=call, mode=mode)


@every_model
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_products_and_eigenvalues_are_those_of_the_dense_hessian(entry, mode):
    H = dense(entry, mode)
    subject = make_subject(entry.model(), loss=None, forward=call, train=entry.batch(), mode=mode, call="test")
    V = torch.randn(len(H), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with bystander(subject.model, mode=mode, beside=subject.beside):
        snapshot = ModelSnapshot(subject, {})
        found = snapshot.hessian @ V
        snapshot.release()
    # the library takes norms and token losses in float32 whatever the model's dtype
    torch.testing.assert_close(found, H @ V, rtol=0, atol=2e-6 * float((H @ V).abs().max()))

    eigenvalues = np.linalg.eigvalsh(H.numpy())
    readings = tv.measure(entry.model(), batch=entry.batch(), forward=call, mode=mode, what=CURVATURE)
    scale = np.abs(eigenvalues).max()
    np.testing.assert_allclose(readings["hessian.top"].value, eigenvalues[::-1][:5], rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(readings["hessian.bottom"].value, eigenvalues[:1], rtol=0, atol=1e-4 * scale)
    trace = readings["hessian.trace"]
    assert trace.value == pytest.approx(eigenvalues.sum(), abs=5 * trace.error + 1e-6 * scale)


@every_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_padded_batch_in_uneven_pieces_equals_one_batch(entry, dtype):
    def readings(batch, heldout):
        return tv.measure(entry.model(dtype), forward=call, batch=batch, heldout=heldout, what=SPLIT_EQUALS_WHOLE)

    whole = readings(entry.batch(dtype), entry.batch(dtype, seed=9))
    parts = readings(entry.split(dtype=dtype), entry.split(dtype=dtype, seed=9))
    for name in SPLIT_EQUALS_WHOLE:
        top = np.abs(whole[name].value).max()
        np.testing.assert_allclose(parts[name].value, whole[name].value, rtol=0, atol=2e-5 * max(top, 1e-2))


def test_causal_models_are_weighted_by_the_tokens_that_they_predict():
    entry = next(e for e in PRETRAINED if e.name == FAST)
    subject = make_subject(entry.model(), loss=None, forward=call, train=entry.split(), call="test")
    predicted = [int((LENGTHS[a:b] - 1).sum()) for a, b in ((0, 3), (3, 4), (4, 8))]
    assert subject.train.num_terms == pytest.approx(predicted)


@every_model
def test_every_default_metric_is_a_finite_number_or_says_why_not(entry):
    model = entry.model(torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    readings = tv.measure(
        model, forward=call, batch=entry.batch(torch.float32), heldout=entry.batch(torch.float32, seed=9),
        optimizer=optimizer, what="default",
    )  # fmt: skip
    for name, reading in readings.items():
        assert reading.missing or np.isfinite(np.asarray(reading.value, dtype=float)).all(), name
    measured = [name for name, reading in readings.items() if reading.missing is None]
    assert {"loss.train", "loss.heldout", "gap.loss", "grad.norm", "oui", *CURVATURE, "hessian.density"} <= {*measured}
    assert not [r.missing for r in readings.values() if r.missing and "failed" in r.missing]


def state(model):
    return (
        copy.deepcopy(model.config.to_dict()), model.config._attn_implementation, torch.get_rng_state().tolist(),
        [m.training for m in model.modules()], [sorted(vars(m)) for m in model.modules()],
        [p.grad for p in model.parameters()], [p._version for p in model.parameters()],
        {name: t.tolist() for name, t in model.state_dict().items()},
        {name: t.tolist() for name, t in model.named_buffers()},
    )  # fmt: skip


@every_model
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_measurement_leaves_no_trace(entry, mode):
    model = entry.model(torch.float32).train(mode == "eval")
    before = state(model)
    tv.measure(model, forward=call, batch=entry.split(dtype=torch.float32), mode=mode, what="default")
    assert state(model) == before


def trained(entry, watched, folder):
    torch.manual_seed(0)
    model = entry.model(torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = entry.batch(torch.float32)

    def train():
        for _ in range(3):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()

    if watched:
        with tv.watch(model, optimizer, forward=call, train=batch, heldout=entry.batch(torch.float32, seed=9),
                      every=1, budget=None, store=folder) as run:  # fmt: skip
            train()
        tops = tv.open_run(run.path).series("hessian.top")
        assert tops["step"].nunique() == 4
        assert all(map(math.isfinite, tops["value"]))
    else:
        train()
    return state(model)


@pytest.mark.slow
@pytest.mark.parametrize("entry", PRETRAINED, ids=lambda entry: entry.name)
def test_a_watched_training_ends_in_the_same_bits(entry, tmp_path):
    watched, alone = trained(entry, True, tmp_path), trained(entry, False, tmp_path)
    for part, expected in zip(watched[:5] + watched[6:], alone[:5] + alone[6:], strict=True):
        assert part == expected


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@every_model
def test_half_precision_weights_have_the_sharpness_of_float32(entry, dtype):
    top = {"hessian.top": {"k": 1}}
    model = entry.model(torch.float32)
    full = tv.measure(model, forward=call, batch=entry.batch(torch.float32), what=top)["hessian.top"]
    half = tv.measure(entry.model(torch.float32).to(dtype), forward=call, batch=entry.batch(dtype), what=top)
    assert half["hessian.top"].value[0] == pytest.approx(full.value[0], rel=0.02)
