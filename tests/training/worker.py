"""One process of a run, for tests that kill it or start two: worker.py RUN_DIR [SETTING ...]."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from attenua.training import Trainer, distributed
from tests.training import common

if __name__ == "__main__":
    torch.set_num_threads(1)
    world = distributed.connect(torch.device("cpu"))
    trainer = Trainer(common.config(sys.argv[2:]), common.pictures(), Path(sys.argv[1]), world=world)
    trainer.run()
    distributed.disconnect()
