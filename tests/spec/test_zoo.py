"""Every published model: our count from its config.json is the published one."""

from __future__ import annotations

import pytest

from weft.core.errors import ConfigError, UnsupportedError
from weft.plan.parameters import count_parameters
from weft.spec import ModelSpec, zoo
from weft.spec.families import FAMILIES, spec_to_hf
from weft.spec.families.encoders import ENCODER_DECODERS, ENCODERS

SUPPORTED = {*FAMILIES, *ENCODERS, *ENCODER_DECODERS}
NAMES = [name for name in zoo.names() if zoo.config(name)["model_type"] in SUPPORTED]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_published_ones(name: str) -> None:
    entry, count = zoo.entry(name), count_parameters(zoo.spec(name))
    assert count.total == entry.parameters
    if entry.active is not None:
        assert count.active == entry.active


@pytest.mark.parametrize("name", NAMES)
def test_a_published_config_is_expressed_whole(name: str) -> None:
    """What we write back reads as the same specification."""
    spec = zoo.spec(name)
    if isinstance(spec, ModelSpec):
        assert zoo.spec_from_any_config(spec_to_hf(spec)) == spec


def test_a_family_of_every_kind_is_there() -> None:
    assert len(zoo.names()) == len(set(zoo.names())) > 100
    families = {zoo.config(name)["model_type"] for name in zoo.names()}
    assert families >= {"gpt2", "llama", "qwen3_moe", "deepseek_v3", "mamba", "rwkv", "bert", "t5"}
    assert all(zoo.entry(name).source for name in zoo.names())


CARDS = {  # billions of parameters, total and active, as model cards round them
    "deepseek-v3": (671, 37),
    "deepseek-v3.2": (671, 37),
    "kimi-k2": (1030, 32),
    "kimi-k2.5": (1030, 32),
    "minimax-m2.5": (229, 10),
    "mixtral-8x7b": (46.7, 12.9),
    "qwen3-coder-480b-a35b": (480, 35),
    "qwen3-next-80b-a3b": (80, 3),
    "qwen3-vl-235b-a22b": (235, 22),
    "qwen3.5-27b": (27, 27),
    "qwen3.5-397b-a17b": (397, 17),
    "glm-5": (744, 40),
    "glm-4.5": (355, 32),
    "glm-4.5-air": (106, 12),
    "gpt-3-175b": (175, 175),
    "gpt-oss-20b": (20.9, 3.6),
    "gpt-oss-120b": (116.8, 5.1),
    "kimi-linear-48b-a3b": (49.1, 3),
}


@pytest.mark.parametrize("name", CARDS)
def test_counts_agree_with_model_cards(name: str) -> None:
    count, (total, active) = count_parameters(zoo.spec(name)), CARDS[name]
    assert count.total == pytest.approx(total * 1e9, rel=0.01)
    # Cards count embedding and head or not, and may cut the fraction off.
    fewest = (count.active - count.embedding - count.head) // 10**9
    assert fewest <= active <= count.active * 1.01 / 1e9


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no model 'lama-3\.1-8b'\n.*'llama-3\.1-8b'"):
        zoo.config("lama-3.1-8b")
    assert zoo.config("Llama-3.1-8B") == zoo.config("llama-3.1-8b")


@pytest.mark.parametrize(
    ("model_type", "nearest"), [("lama", "llama"), ("roberta", "bert"), ("mt5", "t5")]
)
def test_an_unknown_model_type_gets_the_nearest_of_all_families(
    model_type: str, nearest: str
) -> None:
    with pytest.raises(UnsupportedError, match=rf"'{model_type}'.*\n.*mean '{nearest}'"):
        zoo.spec_from_any_config({"model_type": model_type})


def test_an_entry_cannot_be_changed_by_its_reader() -> None:
    zoo.config("gpt2")["n_embd"] = 1
    assert zoo.config("gpt2")["n_embd"] == 768
