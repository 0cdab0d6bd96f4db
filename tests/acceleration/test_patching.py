from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fastsam3d.acceleration.patching import Patches, temporarily
from fastsam3d.diffusion.exact.shared_features import SharedDepth
from fastsam3d.diffusion.exact.sparse_surface import SparseSurface


class Thing:
    def __init__(self):
        self.value = 3

    def greet(self, name):
        return f"hello {name}"


def louder(original):
    return lambda *args: original(*args).upper()


def test_replace_and_restore_leave_no_trace():
    thing, other = Thing(), Thing()
    before = dict(vars(thing))
    patches = Patches()
    patches.replace(thing, "greet", louder)
    assert thing.greet("you") == "HELLO YOU"
    assert other.greet("you") == "hello you"
    patches.restore()
    assert vars(thing) == before
    assert thing.greet("you") == "hello you"
    patches.restore()  # a second time does nothing


def test_attributes_of_the_instance_get_their_value_back():
    thing = Thing()
    thing.greet = lambda name: "own"
    own = thing.greet
    patches = Patches()
    patches.set(thing, "value", 5)
    patches.replace(thing, "greet", louder)
    assert (thing.value, thing.greet("x")) == (5, "OWN")
    patches.restore()
    assert thing.value == 3
    assert vars(thing)["greet"] is own


def test_patches_nest_and_come_off_in_reverse():
    thing, patches = Thing(), Patches()
    patches.replace(thing, "greet", louder)
    patches.replace(thing, "greet", lambda original: lambda name: original(name) + "!")
    assert thing.greet("a") == "HELLO A!"
    patches.restore()
    assert "greet" not in vars(thing)


def test_modules_are_patched_outside_their_registries():
    module = nn.Linear(2, 2)
    before = dict(vars(module))
    patches = Patches()
    patches.replace(module, "forward", lambda original: lambda x: original(x) * 0)
    assert torch.equal(module(torch.ones(1, 2)), torch.zeros(1, 2))
    assert set(module.state_dict()) == {"weight", "bias"}
    for name in ("weight", "bias"):
        with pytest.raises(TypeError, match="registered"):
            patches.set(module, name, None)
    patches.restore()
    assert vars(module) == before


def test_a_deep_copy_is_not_patched():
    module = nn.Linear(2, 2)
    patches = Patches()
    patches.replace(module, "forward", lambda original: lambda x: original(x) * 0)
    twin = copy.deepcopy(module)
    x = torch.ones(1, 2)
    assert torch.equal(module(x), torch.zeros(1, 2))
    patches.restore()
    assert torch.equal(twin(x), module(x))
    with torch.no_grad():
        twin.weight.zero_()
    assert not torch.equal(twin(x), module(x))  # and it is not tied to the original either


def test_a_pickled_copy_is_not_patched():
    module = nn.Linear(2, 2)
    own = nn.Linear(2, 2)
    vars(own)["forward"] = torch.neg  # what an instance had of its own, it has again
    patches = Patches()
    for patched in (module, own):
        for _ in range(2):
            patches.replace(patched, "forward", lambda original: lambda x: original(x) * 0)
    twin, other = pickle.loads(pickle.dumps([module, own]))
    x = torch.ones(1, 2)
    assert torch.equal(module(x), torch.zeros(1, 2))
    patches.restore()
    assert torch.equal(twin(x), module(x))
    assert torch.equal(other(x), -x)
    with torch.no_grad():
        twin.weight.zero_()
    assert not torch.equal(twin(x), module(x))


def test_stand_ins_are_copied_as_what_they_stand_in_for():
    dense = SimpleNamespace(res=16)
    for copied in (copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))):
        assert copied(SparseSurface(dense)) == dense
        assert copied(SharedDepth(abs)) is abs


def test_temporarily_ends_with_an_exception():
    thing = Thing()
    with temporarily(thing, value=9, extra=1):
        assert (thing.value, thing.extra) == (9, 1)
    with pytest.raises(ZeroDivisionError), temporarily(thing, value=0, extra=1):
        thing.extra / thing.value
    assert vars(thing) == {"value": 3}
