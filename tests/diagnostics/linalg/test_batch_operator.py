"""Every operator, on every model of the case list, by every way of making products, against a dense matrix."""

import dataclasses
import functools
import gc
import warnings
import weakref

import pytest
import torch
from cases import CASES, dense_hessian
from dense_operators import dense_fisher, dense_gauss_newton, snapshot_of
from linalg_helpers import hessian_of, math_attention  # noqa: F401
from torch import nn
from torch._functorch import config as functorch_config
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.linalg.block import BlockOperator
from trainvitals.diagnostics.linalg.difference import DifferenceOperator
from trainvitals.diagnostics.linalg.fisher import FisherOperator
from trainvitals.diagnostics.linalg.gauss_newton import GaussNewtonOperator
from trainvitals.diagnostics.linalg.hvp import HessianOperator
from trainvitals.diagnostics.linalg.preconditioned import PreconditionedOperator
from trainvitals.diagnostics.linalg.products import FINITE_DIFFERENCES, OPTIONS, Products

# torch 2.13 cannot take the forward derivative of mse_loss's backward pass (a symbolic zero is written to)
NO_FORWARD_MODE = {"mse"}
# Products by double backward and forward mode are exact but for rounding; differences at a step of √ε(1 + ‖θ‖) were
# measured at 1e-8 where no ReLU switches within the step.
TOLERANCE = dict.fromkeys(OPTIONS, 1e-10) | {FINITE_DIFFERENCES: 1e-6}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
every_way = pytest.mark.parametrize("way", OPTIONS)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def operators(snapshot, way):
    """Each operator with the dense matrix that it stands for, as functions of (H, G, F) dense."""
    products = Products(way)
    batches, parameters = snapshot.batch_losses(), snapshot.parameters
    H = HessianOperator(batches, parameters, products)
    G = GaussNewtonOperator(batches, parameters, products)
    F = FisherOperator(batches, parameters, products)
    size = H.shape[0]
    D, W = normal(size).abs() + 0.1, normal(size, seed=1)
    names = list(parameters)[:2]
    chosen = torch.cat([torch.full((p.numel(),), n in names) for n, p in parameters.items()])
    root = D.sqrt()
    return [
        ("H", H, lambda h, g, f: h),
        ("G", G, lambda h, g, f: g),
        ("F", F, lambda h, g, f: f),
        ("H-G", DifferenceOperator(H, G), lambda h, g, f: h - g),
        ("block", BlockOperator(H, parameters, names), lambda h, g, f: h[chosen][:, chosen]),
        ("PH", PreconditionedOperator(H, D, W), lambda h, g, f: root[:, None] * (h + W.diag()) * root),
    ]


@functools.cache
def dense_matrices(case):
    built = case.build()
    return tuple(f(built.model, built.loss, built.batch) for f in (dense_hessian, dense_gauss_newton, dense_fisher))


@every_case
@every_way
def test_every_operator_equals_its_dense_matrix(case, way):
    dense = dense_matrices(case)
    with snapshot_of(case.build()) as snapshot:
        for name, operator, matrix in operators(snapshot, way):
            if case.name in NO_FORWARD_MODE and "forward" in way and name != "F":
                if name == "G":
                    continue  # the loss's second derivative is a double backward there: it works
                with pytest.raises(Missing, match="forward over reverse does not go here"):
                    operator @ torch.ones(operator.shape[0])
                continue
            expected = matrix(*dense)
            assert operator.shape == expected.shape
            V = normal(len(expected), 3, seed=2)
            found, single = operator @ V, operator @ V[:, 0]
            scale = (expected @ V).norm()
            assert (found - expected @ V).norm() <= TOLERANCE[way] * scale, name
            assert (single - expected @ V[:, 0]).norm() <= TOLERANCE[way] * scale, name


def mlp(dtype=torch.float64, width=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 3)).to(dtype)


def batches_of(*sizes, dtype=torch.float64):
    x, y = normal(sum(sizes), 5).to(dtype), torch.arange(sum(sizes)) % 3
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


@every_way
def test_batches_of_64_64_64_64_and_8_equal_one_batch(way):
    split, whole = (
        hessian_of(mlp(), nn.functional.cross_entropy, batches_of(*sizes)) for sizes in [(64, 64, 64, 64, 8), (264,)]
    )
    split._products = Products(way)
    v = normal(split.shape[0], 2, seed=3)
    torch.testing.assert_close(split @ v, whole @ v, rtol=TOLERANCE[way], atol=TOLERANCE[way])
    torch.testing.assert_close(split.gradient, whole.gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("way", ["double backward", "forward over reverse"])
def test_a_block_equals_its_columns(dtype, way):
    H = hessian_of(mlp(dtype), nn.functional.cross_entropy, batches_of(20, 5, dtype=dtype))
    V = normal(H.shape[0], 37, seed=4).to(dtype)  # two whole blocks and a rest
    H._products = Products(way + " in blocks")
    blocks = H @ V
    columns = torch.stack([H @ V[:, i] for i in range(37)], 1)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(blocks, columns, rtol=tolerance, atol=tolerance)
    assert H.num_products == 74 + (way == "forward over reverse")  # held against double backward once


def test_the_first_product_costs_as_much_as_the_fiftieth_and_keeps_nothing():
    H = hessian_of(mlp(width=32), nn.functional.cross_entropy, batches_of(40))
    _ = H.gradient  # the graph is there
    v, flops, alive = normal(H.shape[0]), [], []
    for _ in range(50):
        with FlopCounterMode(display=False) as counter:
            v = H @ v
            v = v / v.norm()
        flops.append(counter.get_total_flops())
        if len(flops) in (5, 50):
            gc.collect()
            alive.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
    assert flops[0] > 0
    assert len(set(flops)) == 1
    assert alive[0] == alive[1]


def test_vectors_of_parameters_in_two_dtypes_are_in_the_wider():
    model = mlp(torch.float32)
    x, y = batches_of(12)[0]
    parameters = {n: p.detach().double() if n.startswith("2") else p.detach() for n, p in model.named_parameters()}

    def loss(values):
        W, b, U, c = values
        return nn.functional.cross_entropy(torch.tanh(x.float() @ W.T + b).double() @ U.T + c, y)

    H = HessianOperator([(1.0, loss)], parameters)
    reference = hessian_of(model.double(), nn.functional.cross_entropy, [(x, y)])
    v = normal(H.shape[0])
    assert H.dtype == torch.float64
    torch.testing.assert_close(H @ v, reference @ v, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", ["double backward", "forward over reverse"])
@pytest.mark.parametrize("first", ["cpu", "meta"])
def test_parameters_on_two_devices_meet_in_vectors_on_the_first(way, first):
    """Shapes, dtypes and devices without numbers: fake tensors refuse to work across devices."""
    second = {"cpu": "meta", "meta": "cpu"}[first]
    with functorch_config.patch(fake_tensor_allow_meta=True), FakeTensorMode():
        parameters = {"a": torch.empty(4, 5, device=first), "b": torch.empty(3, 4, device=second)}
        x = torch.empty(6, 5, device=first)

        def loss(values):
            hidden = torch.tanh(x @ values[0].T).to(second)
            return (torch.tanh(hidden @ values[1].T) ** 2).mean().to(first)

        products = Products(way)
        products.is_held_against = True  # there are no numbers to compare
        H = HessianOperator([(1.0, loss)], parameters, products)
        V = torch.empty(H.shape[0], 1, device=second)  # no matter where vectors come from
        found = H @ V
        assert (found.device.type, found.shape) == (first, V.shape)
        assert H.gradient.device.type == first
        product = H._product_of(0, way).apply(H._pieces(torch.empty(H.shape[0], device=first)))
        assert [t.device.type for t in product] == [first, second]


# Where torch has no second derivative ------------------------------------------------------------


class OnceTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * (1 - ctx.saved_tensors[0] ** 2)


class CutTanh(torch.autograd.Function):
    """Its backward pass is right and leaves no graph: torch takes it for constant, and says nothing."""

    @staticmethod
    def forward(ctx, x):
        ctx.y = torch.tanh(x).detach()
        return ctx.y.clone()

    @staticmethod
    def backward(ctx, g):
        return g.detach() * (1 - ctx.y**2)


class ThroughNumpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return torch.from_numpy(g.numpy() * (1 - y.numpy() ** 2))


class Activation(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


def with_activation(function):
    model = mlp()
    model[1] = Activation(function)
    return model


@pytest.mark.parametrize("function", [OnceTanh, ThroughNumpy])
def test_without_a_second_derivative_products_are_finite_differences_and_say_so(function):
    expected = hessian_of(mlp(), nn.functional.cross_entropy, batches_of(20, 7))
    H = hessian_of(with_activation(function), nn.functional.cross_entropy, batches_of(20, 7))
    v = normal(H.shape[0])
    with pytest.warns(RuntimeWarning, match="no second derivative in torch"):
        found = H @ v
    assert (found - expected @ v).norm() <= 1e-6 * (expected @ v).norm()
    words = H._products.words()
    assert words["products"] == FINITE_DIFFERENCES
    assert "finite differences" in words["products_reason"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        H @ v


def test_a_backward_pass_that_is_cut_off_is_found_by_the_second_product():
    expected = hessian_of(mlp(), nn.functional.cross_entropy, batches_of(20))
    H = hessian_of(with_activation(CutTanh), nn.functional.cross_entropy, batches_of(20))
    V = normal(H.shape[0], 2)
    H @ V[:, 0]
    with pytest.warns(RuntimeWarning, match="cut off"), pytest.raises(Missing, match="not symmetric"):
        H @ V[:, 1]
    torch.testing.assert_close(H @ V, expected @ V, rtol=1e-5, atol=1e-7)


def test_rounding_of_a_vanishing_hessian_is_no_cut_off_graph():
    model = mlp(torch.float32)
    with torch.no_grad():
        model[2].weight.mul_(1e4)
    x, _ = batches_of(20, dtype=torch.float32)[0]
    H = hessian_of(model, nn.functional.cross_entropy, [(x, model(x).argmax(1))])  # interpolated: H is rounding
    H @ normal(H.shape[0], 4).float()
    assert H._products.way == "double backward"


def test_a_way_that_was_asked_for_is_not_replaced():
    H = hessian_of(with_activation(OnceTanh), nn.functional.cross_entropy, batches_of(20))
    H._products = Products("double backward")
    with pytest.raises(Missing, match="products='finite differences' needs only gradients"):
        H @ normal(H.shape[0])


def test_an_error_of_the_first_derivative_is_the_users_own():
    def loss(parameters):
        raise RuntimeError("broken model")

    with pytest.raises(RuntimeError, match="broken model"):
        HessianOperator([(1.0, loss)], {"w": torch.ones(2)}) @ torch.ones(2)


# Memory ------------------------------------------------------------------------------------------


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 40), nn.Linear(40, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class WideCase:
    """264 samples in uneven batches; a graph of all of them holds megabytes."""

    loss = staticmethod(nn.functional.cross_entropy)

    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = Wide().double()
        self.batches = batches_of(128, 128, 8)


def held_bytes(tensors):
    """An independent count: what the nodes of a graph say that they have saved."""
    seen, waiting, found = set(), [t.grad_fn for t in tensors if t.grad_fn is not None], {}
    for tensor in tensors:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for name in dir(node):
            saved = getattr(node, name) if name.startswith("_saved_") else None
            for tensor in saved if isinstance(saved, (tuple, list)) else (saved,):
                if isinstance(tensor, torch.Tensor) and not (tensor.is_leaf and tensor.requires_grad):
                    found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        waiting += [after for after, _ in node.next_functions if after is not None]
    return sum(found.values())


@pytest.mark.parametrize("operator", [HessianOperator, GaussNewtonOperator, FisherOperator])
def test_graphs_stay_within_the_bound_and_numbers_stay_the_same(operator, monkeypatch):
    with snapshot_of(WideCase()) as snapshot:
        arguments = snapshot.batch_losses(), snapshot.parameters
        free = operator(*arguments)
        V = normal(free.shape[0], 2)
        expected = free @ V
        total = sum(held_bytes(product.tensors) for product in free._held.values())
        leaves = sum(8 * size for size in free._sizes)
        for limit in (2 * total, total // 3, total // 20):
            products = Products(max_memory_bytes=limit)
            bounded = operator(*arguments, products)
            graphs, at_once = weakref.WeakSet(), []
            build = bounded._built

            def counted(batch, way, build=build, graphs=graphs, at_once=at_once):
                product = build(batch, way)
                for tensor in product.tensors:
                    tensor.counted = True
                at_once.append(held_bytes(product.tensors))
                return product

            monkeypatch.setattr(bounded, "_built", counted)
            torch.testing.assert_close(bounded @ V, expected, rtol=1e-9, atol=1e-12)
            assert max(at_once) <= limit + leaves  # leaves are saved by reference, and may be seen as views
            words = products.words()
            assert words["graph_bytes"] <= limit
            assert ("graphs" in words) == (limit < total)
            assert len(bounded._held) == (3 if limit > total else 0)
            if limit == total // 20:
                assert words["micro_batch"] < 128
                assert sum(batch.share for batch in bounded._batches) == pytest.approx(1, abs=1e-12)


def test_operators_of_a_run_take_turns_within_the_bound():
    with snapshot_of(WideCase()) as snapshot:
        arguments = snapshot.batch_losses(), snapshot.parameters
        products = Products(max_memory_bytes=10**7)
        H, G = HessianOperator(*arguments, products), GaussNewtonOperator(*arguments, products)
        v = normal(H.shape[0])
        first = H @ v
        assert H._held
        G @ v
        assert G._held
        assert not H._held
        torch.testing.assert_close(H @ v, first, rtol=0, atol=0)


def test_a_bound_below_one_sample_says_what_one_takes():
    with snapshot_of(WideCase()) as snapshot:
        H = HessianOperator(snapshot.batch_losses(), snapshot.parameters, Products(max_memory_bytes=100))
        with pytest.raises(Missing, match=r"one sample takes \d+ bytes: max_memory_bytes=100 is too little"):
            H @ normal(H.shape[0])


def test_a_batch_that_cannot_be_cut_and_a_loss_without_outputs_say_so():
    with snapshot_of(WideCase()) as snapshot:
        whole = [dataclasses.replace(batch, split=None) for batch in snapshot.batch_losses()]
        H = HessianOperator(whole, snapshot.parameters, Products(max_memory_bytes=10**5))  # a sample takes about 10⁴
        with pytest.raises(Missing, match="samples of a batch that cannot be cut"):
            H @ normal(H.shape[0])
    w = {"w": torch.ones(2, dtype=torch.float64)}
    with pytest.raises(Missing, match="only the loss as a whole is known"):
        GaussNewtonOperator(HessianOperator([(1.0, lambda p: (p["w"] ** 2).sum())], w)._batches, w) @ w["w"]


class FullMemory:
    """Raises `error` for batches above a size: what an allocator does."""

    def __init__(self, error, most):
        self.error, self.most, self.sizes = error, most, []

    def __call__(self, outputs, targets):
        self.sizes.append(len(targets))
        if len(targets) > self.most and torch.is_grad_enabled():
            raise self.error
        return nn.functional.cross_entropy(outputs, targets)


OUT_OF_MEMORY = [
    getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory: you tried to allocate"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_out_of_memory_halves_the_micro_batch_once_with_a_warning(error):
    case = WideCase()
    with snapshot_of(case) as snapshot:
        free = HessianOperator(snapshot.batch_losses(), snapshot.parameters)
        v = normal(free.shape[0])
        expected = free @ v
    case.loss = FullMemory(error, most=64)
    with snapshot_of(case) as snapshot:
        H = HessianOperator(snapshot.batch_losses(), snapshot.parameters)
        with pytest.warns(RuntimeWarning, match="64 now") as warned:
            found = [H @ v for _ in range(2)]
        torch.testing.assert_close(found[1], expected, rtol=1e-9, atol=1e-12)
        assert len(warned) == 1
        assert H._products.words()["micro_batch"] == 64
        assert not H._held
    case.loss = FullMemory(error, most=40)
    with snapshot_of(case) as snapshot:
        H = HessianOperator(snapshot.batch_losses(), snapshot.parameters)
        with pytest.warns(RuntimeWarning), pytest.raises(Missing, match="out of memory with 64 samples in one graph"):
            H @ v
