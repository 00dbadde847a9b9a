import pytest

from weft.core.errors import UnsupportedError
from weft.dist.compat import check_torch_version


def test_installed_release_is_supported():
    assert (2, 11) <= check_torch_version() <= (2, 13)


@pytest.mark.parametrize("version", ["2.11.0", "2.12.1+cu130", "2.13.0+cpu"])
def test_supported_releases_are_accepted(version):
    assert check_torch_version(version)[0] == 2


@pytest.mark.parametrize("version", ["2.10.1", "2.14.0.dev20261001", "1.13.1", "unknown"])
def test_other_releases_are_refused_with_the_command_that_helps(version):
    with pytest.raises(UnsupportedError, match=r"weft supports 2\.11 to 2\.13") as error:
        check_torch_version(version)
    assert 'pip install "torch>=2.11,<2.14"' in str(error.value)
