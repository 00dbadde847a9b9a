from __future__ import annotations

import pytest

from weft.core import errors
from weft.core.optional import require


def test_exit_codes_follow_the_tree() -> None:
    assert errors.WeftError("x").exit_code == 1
    assert errors.ContextLengthError("x").exit_code == 2
    assert errors.ContextLengthError("x").status == 400
    assert errors.QueueFullError("x", retry_after_s=3).status == 429
    assert errors.Interrupted("x").exit_code == 130


def test_the_fix_is_part_of_the_text() -> None:
    assert str(errors.ConfigError("a is 0", fix="set a=1")) == "a is 0\n  fix: set a=1"


def test_a_missing_extra_names_the_command_that_installs_it() -> None:
    with pytest.raises(errors.MissingExtraError, match=r'pip install "weft\[data\]"'):
        require("no_such_module_at_all", extra="data")
