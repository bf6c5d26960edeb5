"""Curvature against PyHessian, curvlinops with SciPy's eigsh, and hessian-eigenthings, at equal accuracy.

    python benchmarks/curvature.py all         # about ten minutes on two cores
    python benchmarks/curvature.py top density --repeats 5
    python benchmarks/curvature.py all --quick --no-save

The same trained models and batches in float32 for all, one process, one thread, in turns; accuracy is measured
against float64. Settings are chosen on other seeds than those that are timed. What each question asks stands in
its file in `curvature_questions/`, what each system is asked in `curvature_systems/`.
"""

from __future__ import annotations

import argparse
import importlib
import time
import warnings

import torch
from curvature_report import QUESTIONS, about, save
from threadpoolctl import threadpool_limits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", default=["all"], choices=["all", *QUESTIONS], help="default: all")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repeats (default 3)")
    parser.add_argument("--quick", action="store_true", help="tiny models and two repeats: a check that it runs")
    parser.add_argument("--no-save", action="store_true", help="print, and leave benchmarks/results as it is")
    options = parser.parse_args()
    repeats = 2 if options.quick else options.repeats
    warnings.simplefilter("ignore")  # PyHessian warns of the cycle in .grad, torch of nested tensors
    torch.set_num_threads(1)
    threadpool_limits(1)
    for question in QUESTIONS if "all" in options.questions else options.questions:
        started = time.perf_counter()
        section = importlib.import_module(f"curvature_questions.{question}").run(options.quick, repeats)
        print(section.markdown(about(repeats)), f"\n({question}: {time.perf_counter() - started:.0f} s)\n", flush=True)
        if not options.no_save and not options.quick:
            save(section, repeats)


if __name__ == "__main__":
    main()
