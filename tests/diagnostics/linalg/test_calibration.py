import pytest
import torch
from linalg_helpers import hessian_of, math_attention  # noqa: F401
from torch import nn

from trainvitals.diagnostics.linalg import calibration
from trainvitals.diagnostics.linalg.calibration import calibrated
from trainvitals.diagnostics.linalg.products import Products

ROWS = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
A = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))


class Clock:
    """Stands for the module `time`, so that a busy machine chooses nothing here."""

    now = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


time = Clock()


@pytest.fixture
def _clock(monkeypatch):
    monkeypatch.setattr(calibration, "time", time)


class Timed:
    """Products with A that take a stated time: seconds a vector, alone and in blocks."""

    def __init__(self, alone, blocks, is_wrong=False):
        self.alone, self.blocks, self.is_wrong, self.num_products = alone, blocks, is_wrong, 0

    def __call__(self, block, rows):
        if block is not None and self.blocks is None:
            raise RuntimeError("no rule for this operation")
        self.num_products += len(rows)
        time.sleep((self.alone if block is None else self.blocks) * len(rows))
        return rows @ A.T * (1.01 if self.is_wrong and block is not None else 1)


@pytest.mark.usefixtures("_clock")
@pytest.mark.parametrize(
    ("run", "block"),
    [
        (Timed(0.03, 0.03), None),
        (Timed(0.03, 0.012), 4),
        (Timed(0.03, None), None),
        (Timed(0.03, 0.01, is_wrong=True), None),
    ],
    ids=["does not pay", "pays", "fails", "is wrong"],
)
def test_a_block_is_chosen_if_it_pays_and_is_right(run, block):
    choice, spent = calibrated(object(), run, ROWS)
    assert choice.block == block
    if run.blocks is not None:
        assert spent == choice.num_products == run.num_products
    assert spent <= 11


@pytest.mark.usefixtures("_clock")
def test_short_passes_try_larger_blocks():
    class PerPass(Timed):
        def __call__(self, block, rows):  # a pass costs the same whatever it holds
            time.sleep(0.002)
            return rows @ A.T

    assert calibrated(object(), PerPass(0, 0), ROWS)[0].block == 16
    assert calibrated(object(), PerPass(0, 0), ROWS[:8])[0].block == 4


@pytest.mark.usefixtures("_clock")
def test_a_choice_is_made_once_a_model():
    first, spent = calibrated("a model", Timed(0.02, 0.005), ROWS)
    again, spent_again = calibrated("a model", Timed(0.001, 0.1), ROWS)
    assert first is again
    assert spent > 0
    assert spent_again == 0


def operator(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.randn(30, 6), torch.arange(30) % 3
    return hessian_of(model, nn.functional.cross_entropy, [(x, y)])


def test_blocks_are_calibrated_once_enough_vectors_came_in_them():
    H, V = operator(), torch.randn(53, 16)
    H._products = Products(patience=40, signature=object())
    expected = torch.stack([H @ v for v in V.T], 1)  # vectors that come alone do not count
    assert H.num_products == 16
    for _ in range(2):
        H @ V
    assert (H.num_products, H._products.num_calibrating) == (48, 0)
    found = H @ V
    assert H._products.num_calibrating > 0
    assert H.num_products == 64 + H._products.num_calibrating
    assert H._products.words()["calibration_products"] == H._products.num_calibrating
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_measuring_twice_gives_the_same_bits_though_the_choice_depends_on_time():
    signature, V = object(), torch.randn(53, 24)
    found = []
    for _ in range(2):
        H = operator()
        H._products = Products(patience=20, signature=signature)
        found.append(torch.cat([H @ V, H @ V[:, :1], H @ V], 1))
    assert torch.equal(*found)
