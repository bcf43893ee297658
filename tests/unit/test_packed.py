"""Values that stay pickled on their way through a process that does not need them."""

import pickle

from protenix_multiseed.packed import Packed

unpickled = []


class Value:
    """A value that counts how often it is unpickled."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return _unpickle, (self.number,)


def _unpickle(number):
    unpickled.append(number)
    return Value(number)


def test_a_value_is_unpickled_once_where_it_is_asked_for():
    made = Packed(Value(7))
    assert made.value.number == 7
    passed_on = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(made))))
    assert not unpickled
    assert passed_on.value.number == 7
    assert passed_on.value is passed_on.value
    assert unpickled == [7]


def test_a_value_may_be_none():
    assert pickle.loads(pickle.dumps(Packed(None))).value is None
