"""What was measured of a model is kept, and is not taken for that of another."""

import importlib
import inspect
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from soralab.recipes import Trained


@pytest.mark.parametrize("name", ["clip", "latent_diffusion", "navit", "vit", "walt"])
def test_a_longer_training_has_experiments_of_its_own(name, monkeypatch):
    """They go on from the model, so those of a shorter training would be the old model's."""
    module = importlib.import_module(f"soralab.experiments.{name}")
    for key, value in list(vars(module).items()):
        if inspect.isfunction(value) and key not in ("metrics", "experiments", "by_profile", "device"):
            monkeypatch.setattr(module, key, MagicMock())

    def folders(steps: int) -> set[Path]:
        card = {"steps": steps, "autoencoder": "", "scenes": 2}
        module.metrics(name, Trained(MagicMock(), card, Path("log.jsonl")))
        mocks = [value for value in vars(module).values() if isinstance(value, MagicMock)]
        calls = [call for mock in mocks for call in mock.call_args_list]
        [mock.reset_mock() for mock in mocks]
        return {arg for call in calls for arg in call.args if isinstance(arg, Path) and len(arg.parts) > 2}

    short, long = folders(2), folders(4)
    assert short and long and not short & long
