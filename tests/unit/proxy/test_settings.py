"""The proxy's own variable."""

import resource

import pytest

from crossns import errors
from services.proxy import settings


def test_unset_it_means_the_limit_of_this_process() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert settings.from_environ({}) == settings.Settings(open_files=hard)


def test_what_is_set_counts() -> None:
    assert settings.from_environ({"CROSSNS_PROXY_OPEN_FILES": "4096"}) == settings.Settings(open_files=4096)


@pytest.mark.parametrize("value", ["511", "many", "-1", "4096.5", "5000\n6"])
def test_a_value_that_is_none_is_refused_by_name(value: str) -> None:
    with pytest.raises(errors.InvalidSpec, match=r"^CROSSNS_PROXY_OPEN_FILES: ") as caught:
        settings.from_environ({"CROSSNS_PROXY_OPEN_FILES": value})
    assert "\n" not in caught.value.message
