"""Drafting stops where it does not pay and is tried again, on a clock that tests turn."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from weft.core.errors import ConfigError
from weft.engine.draw import Walk
from weft.engine.speculation.config import SwitchConfig
from weft.engine.speculation.control import Switch
from weft.engine.step_view import StepView
from weft.sched.loop import VirtualClock
from weft.sched.plan import Sampled, StepItem

CONFIG = SwitchConfig(cycle_steps=64, probe_steps=4)


def _view(num_tokens: int, ids=(0, 1)) -> StepView:
    items = tuple(StepItem(id, (5,), 3, (0,), sample=True) for id in ids)
    walks = {id: Walk(id, 4, 0, drawn=[Sampled(1, 0.0)] * num_tokens) for id in ids}
    return StepView(items, (), (), None, None, walks)


@dataclass
class Machine:
    """Steps with drafting take ``drafted_s`` and give ``num_tokens``; others one second and one."""

    switch: Switch
    clock: VirtualClock
    drafted_s: float
    num_tokens: int
    drafting: bool = True

    def run(self, num_steps: int) -> list[bool]:
        decisions = []
        for _ in range(num_steps):
            self.clock.sleep_until(self.clock.now() + (self.drafted_s if self.drafting else 1.0))
            self.drafting = self.switch.step(_view(self.num_tokens if self.drafting else 1))
            decisions.append(self.drafting)
        return decisions


def _machine(drafted_s: float, num_tokens: int, config: SwitchConfig | None = CONFIG) -> Machine:
    clock = VirtualClock()
    return Machine(Switch(config, clock), clock, drafted_s, num_tokens)


def test_drafting_goes_on_where_it_pays():
    machine = _machine(drafted_s=1.5, num_tokens=3)
    decisions = machine.run(640)
    assert sum(decisions) > 0.9 * len(decisions)
    assert machine.switch.speedup == pytest.approx(2.0, rel=0.05)


def test_drafting_stops_where_it_does_not_and_is_tried_again():
    machine = _machine(drafted_s=3.0, num_tokens=2)
    decisions = machine.run(640)
    assert sum(decisions[64:]) < 0.1 * len(decisions[64:])
    assert any(decisions[-64:])
    assert machine.switch.speedup == pytest.approx(2 / 3, rel=0.05)


def test_drafting_resumes_when_it_begins_to_pay():
    machine = _machine(drafted_s=3.0, num_tokens=2)
    machine.run(256)
    machine.drafted_s = 1.0
    assert all(machine.run(1280)[-20:-10])


def test_a_pause_between_requests_is_no_slow_step():
    machine = _machine(drafted_s=1.0, num_tokens=2)
    machine.run(200)
    before = machine.switch.speedup
    machine.clock.sleep_until(machine.clock.now() + 1e6)
    machine.switch.step(_view(2, ids=(8, 9)))
    machine.switch.step(_view(2, ids=(8, 9)))
    assert machine.switch.speedup == pytest.approx(before, rel=0.2)


def test_batches_of_different_size_are_judged_apart():
    machine = _machine(drafted_s=3.0, num_tokens=1)
    machine.run(200)
    assert not machine.switch.step(_view(1))
    assert machine.switch.step(_view(1, ids=tuple(range(9))))


def test_without_a_switch_drafting_never_stops():
    assert all(_machine(9.0, 1, config=None).run(300))


def test_limits_of_the_switch():
    with pytest.raises(ConfigError, match="probe_steps"):
        SwitchConfig(probe_steps=1)
    with pytest.raises(ConfigError, match="cycle_steps"):
        SwitchConfig(cycle_steps=6, probe_steps=4)
