"""The thread of an engine: commands between steps, answers to everyone, one end."""

from __future__ import annotations

import threading

import pytest

from weft.engine.worker import Worker

TIMEOUT_S = 20.0


class Job:
    """Work of a given number of steps, and a record of who did what."""

    def __init__(self, num_steps: int = 0) -> None:
        self.num_left = num_steps
        self.done: list[str] = []
        self.worker = Worker(
            "test-worker",
            has_work=lambda: self.num_left > 0,
            step=self.step,
            end=lambda: self.done.append("end"),
        )

    def step(self) -> None:
        self.num_left -= 1
        self.done.append("step")
        if self.num_left < 0:
            raise ArithmeticError("a step too many")

    def stop(self) -> None:
        self.worker.stop(TIMEOUT_S)


def test_a_question_is_answered_in_the_thread_between_two_steps():
    job = Job()
    assert job.worker.ask(threading.get_ident).result(TIMEOUT_S) == job.worker.thread.ident
    job.worker.tell(lambda: setattr(job, "num_left", 3))
    job.stop()
    assert job.done[-1] == "end"
    assert set(job.done[:-1]) <= {"step"}


def test_an_exception_is_the_answer_and_does_not_end_the_thread():
    job = Job()
    with pytest.raises(ZeroDivisionError):
        job.worker.ask(lambda: 1 // 0).result(TIMEOUT_S)
    assert job.worker.ask(lambda: "alive").result(TIMEOUT_S) == "alive"
    job.stop()
    assert job.worker.failure is None


def test_what_a_step_raises_ends_the_thread_and_is_kept():
    job = Job()
    job.worker.tell(job.step)
    job.worker.thread.join(TIMEOUT_S)
    assert isinstance(job.worker.failure, ArithmeticError)
    assert job.done == ["step", "end"]
    assert not job.worker.is_alive(TIMEOUT_S)


def test_whoever_asks_after_the_end_finds_out_itself():
    job = Job()
    job.stop()
    job.stop()
    assert job.worker.ended
    assert job.worker.ask(threading.get_ident).result(0.0) == threading.get_ident()
    assert job.done == ["end"]


def test_questions_that_were_open_at_the_end_are_answered_before_it():
    job = Job()
    entered, leave = threading.Event(), threading.Event()
    job.worker.tell(lambda: (entered.set(), leave.wait(TIMEOUT_S)))
    assert entered.wait(TIMEOUT_S)
    late = job.worker.ask(lambda: list(job.done))
    stopping = threading.Thread(target=job.stop)
    stopping.start()
    leave.set()
    assert late.result(TIMEOUT_S) == []
    stopping.join(TIMEOUT_S)
    assert job.done == ["end"]


def test_a_thread_that_does_not_look_around_is_not_alive():
    job = Job()
    entered, leave = threading.Event(), threading.Event()
    job.worker.tell(lambda: (entered.set(), leave.wait(TIMEOUT_S)))
    assert entered.wait(TIMEOUT_S)
    assert job.worker.thread.is_alive()
    assert not job.worker.is_alive(0.0)
    leave.set()
    job.stop()
