from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.train.helpers import CountingSource, tiny_model
from weft.core.errors import ConfigError
from weft.core.events import Events
from weft.evals.speculation import MeasureConfig, measure_speculation
from weft.recipes.speculator import check_texts, speculator, speculator_eval
from weft.train.speculator_run import run_speculator


@pytest.mark.parametrize("kind", ["eagle", "medusa", "block"])
def test_one_step_of_the_recipe_gives_a_head_that_serves(kind: str, tmp_path: Path):
    job = replace(speculator(), kind=kind, steps=1, precision="fp32", num_guesses=2, device="cpu")
    model = tiny_model(context_length=256)
    head, result = run_speculator(job, model, CountingSource(), folder=tmp_path, events=Events())
    assert result.steps == 1
    measure = MeasureConfig(num_prompts=1, prompt_tokens=8, max_tokens=8)
    speculation = job.speculation(tmp_path / "head")
    assert speculation.path == str(tmp_path / "head")
    from_memory = measure_speculation(model, job.speculation(), [[1, 2, 3]], measure, drafter=head)
    from_disk = measure_speculation(model, speculation, [[1, 2, 3]], measure)
    assert from_memory.num_equal == 1
    assert from_disk.stats.num_draft_tokens == from_memory.stats.num_draft_tokens > 0


def test_the_recipes_have_an_end_and_need_no_network():
    assert speculator().budget.seconds == 5 * 60
    assert speculator().speculation().kind == "eagle"
    assert speculator_eval().speculation.kind == "ngram"


def test_exactly_one_kind_of_text_is_given():
    check_texts(Path("a"), None)
    check_texts(None, Path("a"))
    with pytest.raises(ConfigError, match="no text") as caught:
        check_texts(None, None)
    assert "--corpus" in str(caught.value.fix)
    with pytest.raises(ConfigError, match="both corpus and data"):
        check_texts(Path("a"), Path("b"))
