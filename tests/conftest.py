"""One CPU thread in every test and in every process that a test starts: the same numbers each time, and no crowding."""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import torch

torch.set_num_threads(1)
