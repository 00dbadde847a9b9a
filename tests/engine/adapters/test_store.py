"""Names, generations, users and slots, in any order of loading, using and unloading."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from weft.adapt.adapter import Adapter, Block
from weft.core.errors import CheckpointError, ConfigError, RequestError, UnsupportedError
from weft.engine.adapters.config import AdapterConfig
from weft.engine.adapters.slots import DeviceSlots
from weft.engine.adapters.store import AdapterStore

SHAPES = {"layers.0.mixer.qkv": (6, 4), "layers.0.ffn.down": (4, 5)}
ROOM = {"layers.0.mixer.qkv": 6, "layers.0.ffn.down": 2}
NAMES = ("ada", "bob", "cy", "dan")


def make(value: float = 1.0, rank: int = 2, layer: str = "layers.0.mixer.qkv") -> Adapter:
    num_rows, width = SHAPES.get(layer, (6, 4))
    block = Block(torch.full((rank, width), value), torch.ones(num_rows, rank), 0.5)
    return Adapter({layer: (block,)})


def store() -> AdapterStore:
    return AdapterStore(SHAPES, ROOM, torch.float32)


class StoreMachine(RuleBasedStateMachine):
    """A store and three slots against a dictionary of names and a count of users."""

    def __init__(self) -> None:
        super().__init__()
        self.store = store()
        self.slots = DeviceSlots(3, torch.float32, torch.device("cpu"))
        for layer, room in ROOM.items():
            self.slots.reserve(layer, room, SHAPES[layer])
        self.names: dict[str, str] = {}
        self.values: dict[str, float] = {}
        self.users: Counter[str] = Counter()
        self.next_value = 0.0

    @rule(name=st.sampled_from(NAMES), replace=st.booleans())
    def load(self, name: str, replace: bool) -> None:
        self.next_value += 1.0
        if name in self.names and not replace:
            with pytest.raises(ConfigError, match="loaded already"):
                self.store.load(name, make(self.next_value))
            return
        key = self.store.load(name, make(self.next_value), replace=replace)
        assert key not in self.values, "a key comes twice"
        self.names[name], self.values[key] = key, self.next_value

    @rule(name=st.sampled_from(NAMES))
    def unload(self, name: str) -> None:
        if name not in self.names:
            with pytest.raises(ConfigError, match="no adapter"):
                self.store.unload(name)
            return
        self.store.unload(name)
        del self.names[name]

    @rule(name=st.sampled_from(NAMES))
    def begin_request(self, name: str) -> None:
        if name not in self.names:
            with pytest.raises(RequestError, match="no adapter"):
                self.store.resolve(name)
            return
        key = self.store.resolve(name)
        assert key == self.names[name]
        self.store.hold(key)
        self.users[key] += 1

    @precondition(lambda self: +self.users)
    @rule(data=st.data())
    def end_request(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(+self.users)))
        self.store.release(key)
        self.users[key] -= 1
        self.slots.drop(self.slots.resident - self.store.keys)

    @precondition(lambda self: +self.users)
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        keys = data.draw(st.lists(st.sampled_from(sorted(+self.users)), max_size=3, unique=True))
        placed = self.slots.place({key: self.store.pairs(key) for key in keys})
        assert len(set(placed.values())) == len(keys)
        weights = self.slots.weights["layers.0.mixer.qkv"]
        for key, slot in placed.items():
            assert (weights.a_SRI[slot, :2] == self.values[key]).all(), "another one's numbers"
            assert (weights.a_SRI[slot, 2:] == 0).all()

    @invariant()
    def names_and_users_have_numbers(self) -> None:
        self.store.check_invariants()
        self.slots.check()
        assert self.store.keys == {*self.names.values(), *+self.users}
        assert [info.name for info in self.store.list()] == sorted(self.names)
        for info in self.store.list():
            assert info.num_users == self.users[info.key]


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=40, stateful_step_count=30)


def test_mistakes_name_the_fix() -> None:
    adapters = store()
    with pytest.raises(RequestError, match="load one"):
        adapters.resolve("ada")
    adapters.load("ada", make())
    with pytest.raises(RequestError, match="did you mean 'ada'") as caught:
        adapters.resolve("adda")
    assert caught.value.param == "adapter"
    with pytest.raises(ConfigError, match="without '#'"):
        adapters.load("a#1", make())
    with pytest.raises(ConfigError, match=r"rank 7 .* room for 6\n.*max_rank by 2"):
        adapters.load("bob", make(rank=7))
    with pytest.raises(UnsupportedError, match=r"(?s)'head', which steps .* ffn.down, mixer.qkv"):
        adapters.load("bob", make(layer="head"))
    wrong = Adapter({"layers.0.ffn.down": (Block(torch.ones(1, 4), torch.ones(4, 1), 1.0),)})
    with pytest.raises(CheckpointError, match=r"maps 4 numbers .* the layer maps 5 to 4"):
        adapters.load("bob", wrong)
    assert [info.name for info in adapters.list()] == ["ada"]
    with pytest.raises(ConfigError, match="max_loaded is 0"):
        AdapterConfig(max_loaded=0)


def test_the_scale_is_in_the_copy_and_the_copy_is_ours() -> None:
    adapters, adapter = store(), make(3.0)
    key = adapters.load("ada", adapter)
    adapter.blocks["layers.0.mixer.qkv"][0].a_RI.zero_()
    a_RI, b_OR = adapters.pairs(key)["layers.0.mixer.qkv"]
    assert (a_RI == 3.0).all()
    assert (b_OR == 0.5).all()


def test_the_adapter_used_longest_ago_gives_way() -> None:
    adapters = store()
    slots = DeviceSlots(2, torch.float32, torch.device("cpu"))
    slots.reserve("layers.0.mixer.qkv", 6, SHAPES["layers.0.mixer.qkv"])
    keys = [adapters.load(name, make()) for name in NAMES[:3]]

    def place(*numbers: int) -> None:
        slots.place({keys[number]: adapters.pairs(keys[number]) for number in numbers})

    place(0, 1)
    place(0)
    place(2)
    assert slots.resident == {keys[0], keys[2]}
    assert slots.num_copies == 3
    place(2, 0)
    assert slots.num_copies == 3
    place(1, 2)
    assert slots.resident == {keys[1], keys[2]}
