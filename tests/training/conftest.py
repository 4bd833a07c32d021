"""Runs that several files of tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from attenua.training import Trainer
from tests.training.common import config, pictures


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("straight")
    assert Trainer(config(), pictures(), run).run()
    return run
