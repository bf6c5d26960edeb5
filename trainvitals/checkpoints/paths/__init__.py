"""Metrics of the path through the checkpoints: of pairs, of many, of two runs. One idea a file."""
