"""Copies to and from the device: one item is made ahead, results keep their order, errors reach the caller."""

import threading

import pytest
import torch

from protenix_multiseed.execution.transfer import Transfer


@pytest.fixture
def transfer():
    made = Transfer(torch.device("cpu"))
    yield made
    made.close()


def test_one_item_is_made_ahead_and_no_more(transfer):
    taken, second = [], threading.Event()

    def make(item):
        taken.append(item)
        if item == 1:
            second.set()
        return -item

    coming = transfer.ahead(range(5), make, lambda: False)
    assert next(coming) == 0
    assert second.wait(5)  # while the caller has item 0
    assert taken == [0, 1]
    assert list(coming) == [-1, -2, -3, -4]


def test_a_wait_ends_when_the_run_is_asked_to_stop(transfer):
    never, asked = threading.Event(), []
    coming = transfer.ahead(range(2), lambda item: never.wait(20), lambda: asked.append(1) or len(asked) > 2)
    assert list(coming) == []
    never.set()


def test_no_items_give_no_results(transfer):
    assert list(transfer.ahead([], lambda item: item, lambda: False)) == []


def test_an_error_reaches_the_caller_that_waits(transfer):
    def break_(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 3"):
        next(transfer.ahead([3], break_, lambda: False))
    with pytest.raises(ValueError, match="item 4"):
        transfer.download(4, break_).result()


def test_results_leave_the_device_in_order_while_the_caller_goes_on(transfer):
    gate = threading.Event()
    first = transfer.download(torch.ones(2), lambda value: (gate.wait(5), value.tolist())[1])
    second = transfer.download(torch.zeros(2), torch.Tensor.tolist)
    assert not first.done()
    gate.set()
    assert (first.result(), second.result()) == ([1.0, 1.0], [0.0, 0.0])
