from __future__ import annotations

from weft.sched.waiting import EndingRate


def test_retry_after_is_the_mean_time_between_endings_in_whole_seconds():
    rate = EndingRate()
    assert rate.retry_after_s() == 1
    for time_s in (0.0, 2.0, 9.0):
        rate.note(time_s)
    assert rate.retry_after_s() == 5


def test_retry_after_stays_between_a_second_and_a_minute():
    fast, slow = EndingRate(), EndingRate()
    for count in range(10):
        fast.note(count * 0.01)
        slow.note(count * 1000.0)
    assert fast.retry_after_s() == 1
    assert slow.retry_after_s() == 60
