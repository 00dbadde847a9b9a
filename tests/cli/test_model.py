from __future__ import annotations

import json
from pathlib import Path

import pytest

from weft.cli.main import run
from weft.cli.model import describe, facts
from weft.core.errors import ConfigError, InputFileError, UnsupportedError
from weft.core.files import write_json
from weft.spec import ModelShape, zoo
from weft.spec.families import spec_to_hf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spec = ModelShape(dim=64, num_layers=3).build(1000)
    write_json(tmp_path / "tiny" / "config.json", spec_to_hf(spec))
    return tmp_path / "tiny"


def test_a_name_a_folder_and_a_file_are_models(folder: Path) -> None:
    assert describe("Qwen3-0.6B")["name"] == "qwen3-0.6b"
    assert describe(str(folder)) == describe(str(folder / "config.json"))
    assert describe(str(folder))["num_layers"] == 3


def test_what_is_shown(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run(["model", "show", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "0-2 ×3" in text
    assert "[T, 64] → [T, 128]" in text
    assert "warning: vocab_size: 1000" in text
    assert run(["model", "show", str(folder), "--depth", "1"]) == 0
    assert "0-2" not in capsys.readouterr().out


def test_json_holds_counts_cache_and_tree(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["model", "show", "deepseek-v3", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["parameters"]["total"] == 671_026_404_352
    assert summary["parameters"]["active"] == 37_552_282_624
    assert summary["cache"]["kv_bytes_per_token"] == 70_272
    assert summary["num_modules"] > 900
    assert summary["tree"]["kind"] == "Decoder"


def test_states_and_encoders_have_lines_of_their_own() -> None:
    mamba = dict(facts(describe("mamba2-130m")))
    assert "per token" not in mamba["cache"]
    assert "of state per sequence" in mamba["cache"]
    assert "cache" not in dict(facts(describe("bert-base-uncased")))
    assert "active per token" in dict(facts(describe("gpt-oss-20b")))["parameters"]


def test_the_list_has_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in zoo.names())


def test_mistakes_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'qwen3-8b'"):
        describe("qwen3-8bb")
    with pytest.raises(InputFileError, match=r"no config\.json"):
        describe(str(tmp_path))
    with pytest.raises(ConfigError, match="there is no"):
        describe("nowhere/config.json")
    with pytest.raises(ConfigError, match=r"no model 'zzzz'\n  fix: .*`weft model list`"):
        describe("zzzz")  # not a hundred names
    (tmp_path / "model.bin").write_bytes(b"\x80")
    with pytest.raises(UnsupportedError, match=r"model\.bin is no config\.json\n.*its folder"):
        describe(str(tmp_path / "model.bin"))


def test_the_page_is_one_file(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "model.html"
    assert run(["model", "show", str(folder), "--html", str(page)]) == 0
    text = page.read_text()
    assert "src=" not in text
    assert "http" not in text.replace("http-equiv", "")
    data = text.split('type="application/json">')[1].split("</script>")[0]
    assert json.loads(data.replace("<\\/", "</")) == json.loads(json.dumps(describe(str(folder))))
