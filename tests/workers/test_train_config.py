"""Claims for the training's configuration: global and own values, and what is refused."""

from pathlib import Path

import pytest

from hitfinder.models.ablation import Evidence
from hitfinder.workers.config import ConfigError
from hitfinder.workers.train_config import TrainConfig, read_train_config


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(text)
    return path


def test_no_file_gives_the_defaults() -> None:
    assert read_train_config(None) == TrainConfig()


def test_the_example_states_the_defaults() -> None:
    example = Path(__file__).parents[2] / "deploy" / "train.example.toml"
    assert read_train_config(example) == TrainConfig()


def test_the_gate_takes_its_own_values_before_the_global_ones(tmp_path: Path) -> None:
    text = """
        [train]
        seed = 7
        epochs = 12
        precision = "bfloat16"
        [gate]
        epochs = 3
        paired = false
        without = ["scales", "patches"]
        positive_weight_spots3 = 2.0
    """
    options = read_train_config(write(tmp_path, text)).gate_options()
    assert (options.seed, options.epochs, options.precision) == (7, 3, "bfloat16")
    assert options.without == (Evidence.SCALES, Evidence.PATCHES)
    assert options.positive_weight == (None, 2.0)
    assert not options.is_paired


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[train]\nepoch = 3", "nearest is train.epochs"),
        ("[gates]\nepochs = 3", "nearest is gate"),
        ("[train]\nepochs = 0", "train.epochs: got 0"),
        ("[gate]\nlearning_rate = 2.0", "gate.learning_rate: got 2.0"),
        ("[frames]\ntest_fraction = 1.5", "frames.test_fraction"),
        ('[gate]\nwithout = ["luck"]', "luck"),
        ("[train]\nepochs = 'many'", "train.epochs"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_train_config(write(tmp_path, text))
