"""Shared by all tests: one thread, so that runs repeat bit for bit and tests do not fight over cores."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests import `cases` by name
torch.set_num_threads(1)
