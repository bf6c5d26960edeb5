import pytest
import torch

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.linalg.products import OPTIONS, Products, is_out_of_memory


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_names_a_way_and_whether_vectors_come_in_blocks(option):
    words = Products(option).words()
    assert words["products"] in ("double backward", "forward over reverse", "finite differences")
    assert ("block" in words) == option.endswith(" in blocks")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"requested": "fast"}, "expected products= to be one of 'auto'.*got 'fast'"),
        ({"max_memory_bytes": 0}, "expected max_memory_bytes= to be a positive whole number"),
        ({"max_memory_bytes": 1e9}, "got 1000000000.0"),
        ({"max_memory_bytes": True}, "got True"),
    ],
)
def test_bad_options_are_told(arguments, match):
    with pytest.raises(ValueError, match=match):
        Products(**arguments)


def test_out_of_memory_is_known_by_class_or_by_words():
    for error in (MemoryError(), RuntimeError("CUDA out of memory."), RuntimeError("x: not enough memory: you tried")):
        assert is_out_of_memory(error)
    for error in (RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError()):
        assert not is_out_of_memory(error)


def test_a_fallback_is_warned_of_with_what_is_to_blame_and_kept():
    told = []
    products = Products(warn=told.append, blame=lambda: "module 'head' (Head)")
    products.fall_back(NotImplementedError("the derivative for 'x' is not implemented.\nmore lines"))
    assert told == [products.reason]
    assert told[0].startswith("module 'head' (Head) has no second derivative in torch (the derivative for 'x'")
    assert "more lines" not in told[0]
    assert products.words()["products"] == "finite differences"


def test_memory_is_halved_once():
    told = []
    products = Products(warn=told.append)
    assert products.halve(9, MemoryError()) == 5
    assert (products.rebuilds, products.micro_batch, len(told)) == (True, 5, 1)
    with pytest.raises(Missing, match="out of memory with 5 samples in one graph: MemoryError"):
        products.halve(5, MemoryError())
    with pytest.raises(Missing, match="out of memory with 1 samples"):
        Products().halve(1, torch.OutOfMemoryError("CUDA out of memory"))


def test_only_bounded_runs_take_turns():
    class Holder:
        num_released = 0

        def release(self):
            self.num_released += 1

    for products, num_released in ((Products(), 0), (Products(max_memory_bytes=10), 1)):
        first, second = Holder(), Holder()
        for holder in (first, first, second, second):
            products.claim(holder)
        assert (first.num_released, second.num_released) == (num_released, 0)
