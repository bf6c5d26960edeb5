"""The questions of the comparison, one a file: `run(quick, repeats)` gives a `Section`."""
