"""The system's errors, in words."""

import errno

import pytest

from frozen_cache.disk_errors import ADVICE, explain


@pytest.mark.parametrize("number", sorted(ADVICE))
def test_each_says_what_where_and_what_to_do_in_one_line(number: int) -> None:
    text = explain(OSError(number, "Words of the system", "/data/x.zarr"))
    assert text.startswith("/data/x.zarr: Words of the system; ")
    assert text.endswith(ADVICE[number])
    assert "\n" not in text
    assert explain(OSError(number, None)).endswith(ADVICE[number])


def test_others_stay_as_they_are() -> None:
    assert explain(OSError(errno.EXDEV, "no", "/a")) == str(OSError(errno.EXDEV, "no", "/a"))
