"""What the trainer calls of ours stays out of graphs, and the compiler is not loaded for that."""

import subprocess
import sys

import pytest
import torch

from trainvitals.probes.outside_graphs import outside_graphs


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch.compile's own imports
def test_a_hook_called_by_compiled_code_runs_as_it_is_written():
    compiling, values = [], []

    @outside_graphs
    def hook(x):
        compiling.append(torch.compiler.is_compiling())
        values.append(float(x.sum()))  # tracing would stop at a number that is read

    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    @torch.compile(backend=counting)
    def step(x):
        y = x * 2
        hook(y)
        return y + 1

    torch.compiler.reset()
    assert step(torch.ones(3)).tolist() == [3.0] * 3
    assert compiling == [False]
    assert values == [6.0]
    assert len(graphs) == 2  # before the hook and after it


def test_the_compiler_is_not_loaded_for_it():
    code = ("import sys\nfrom trainvitals.probes.outside_graphs import outside_graphs\n"
            "assert outside_graphs(lambda x: x + 1)(1) == 2\nassert 'torch._dynamo' not in sys.modules")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
