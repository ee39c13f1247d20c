"""The configuration: what is wrong is named, what is right is what was written."""

from pathlib import Path

import pytest

from hitfinder.workers.config import Config, ConfigError, read_config


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return path


def test_no_file_gives_the_defaults() -> None:
    config = read_config(None)
    assert config == Config()
    assert config.gate.max_false_positive_rate == 1e-3
    assert config.http.bind == "127.0.0.1:8080"
    assert config.n_decoders(n_workers=100) == 1


def test_every_section_is_read(tmp_path: Path) -> None:
    text = """
    [source]
    endpoints = ["tcp://10.0.0.1:31001"]
    protocol = "v2"
    lenient = true
    [geometry]
    clen_m = 0.25
    photon_energy_eV = 7000.0
    beam_center_px = [1034.0, 1081.0]
    [gate]
    mode = "spots3"
    [ring]
    slots = 8
    when_full = "block"
    [sink]
    miss_sample_fraction = 1.0
    [workers]
    devices = ["cpu", "cpu"]
    [http]
    bind = "127.0.0.1:0"
    """
    config = read_config(write(tmp_path, text))
    assert config.source.endpoints == ["tcp://10.0.0.1:31001"]
    assert config.geometry.beam_center_px == (1034.0, 1081.0)
    assert config.gate.mode == "spots3"
    assert config.ring.when_full == "block"
    assert config.workers.devices == ["cpu", "cpu"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[gate]\nthreshhold = 0.5", r"unknown key gate\.threshhold; nearest is gate\.threshold"),
        ("[rign]\nslots = 4", r"unknown key rign; nearest is ring"),
        ("gate = 3", r"gate: got 3, expected a section \[gate\]"),
        ("[ring]\nslots = 'many'", r"ring\.slots.*Expected `int`, got `str`"),
        ("[ring]\nslots = 1", r"ring\.slots: got 1, expected 2 to 4096"),
        ("[gate]\nmode = 'all'", r"gate\.mode.*Invalid enum value 'all'"),
        ("[gate]\nmax_false_positive_rate = 2.0", r"got 2\.0, expected 0\.0 to 1\.0"),
        ("[geometry]\nclen_m = nan", r"geometry\.clen_m: got nan"),
        ("[workers]\ndevices = []", r"workers\.devices: got an empty list"),
        ("[source", r"is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        read_config(write(tmp_path, text))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "absent.toml")


def test_the_hash_tells_configurations_apart(tmp_path: Path) -> None:
    other = read_config(write(tmp_path, "[gate]\nmode = 'spots3'"))
    assert Config().sha256() == Config().sha256() != other.sha256()


def test_the_example_states_the_defaults() -> None:
    example = read_config(Path(__file__).parents[2] / "deploy" / "config.example.toml")
    assert example.source.endpoints == ["tcp://127.0.0.1:31001"]
    example.source.endpoints = []
    assert example == Config()
