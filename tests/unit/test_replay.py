"""CUDA graphs: when a loop is captured, what a replay does, and which loops the next batch reuses."""

from functools import partial

import pytest
import torch

from protenix_multiseed.model import cuda_graphs as module
from protenix_multiseed.model.cuda_graphs import GraphCache, GraphedLoop


@pytest.fixture
def captured(monkeypatch):
    """Capture as on a GPU, with functions in the place of graphs. The list holds the captured functions."""
    made = []

    def capture(function):
        made.append(function)
        return function

    monkeypatch.setattr(module, "capture", capture)
    monkeypatch.setattr(module, "can_capture", lambda device: True)
    return made


def doubling(values, called):
    x = torch.tensor(values)

    def body(x):
        called.append(x.data_ptr())
        x *= 2

    return GraphedLoop(partial(body, x), tensors=(x,), fixed=(len(values),))


def test_the_second_call_is_captured_and_all_later_ones_replay_it(captured):
    loop = doubling([1.0, 2.0], [])
    loop()
    assert captured == []  # the first call compiles kernels and allocates memory
    for _ in range(4):
        loop()
    assert len(captured) == 1
    assert loop.tensors[0].tolist() == [32.0, 64.0]


def test_a_replay_does_not_run_the_python_function(monkeypatch):
    """So a replay allocates nothing: a graph only launches the captured kernels again."""
    called, replayed = [], []
    monkeypatch.setattr(module, "can_capture", lambda device: True)
    monkeypatch.setattr(module, "capture", lambda body: (body(), lambda: replayed.append(True))[1])
    loop = doubling([1.0], called)
    for _ in range(5):
        loop()
    assert len(called) == 2
    assert len(replayed) == 4


def test_without_a_gpu_every_call_runs_the_python_function(monkeypatch):
    monkeypatch.setattr(module, "capture", lambda body: pytest.fail("captured"))
    loop = doubling([1.0], [])
    for _ in range(3):
        loop()
    assert loop.tensors[0].item() == 8.0
    assert not loop.captures


def test_the_next_batch_of_the_same_sizes_reuses_tensors_and_graph(captured):
    loops, called = GraphCache(), []
    for values in ([1.0, 2.0], [5.0, 6.0]):
        loops.begin(2)
        loop = loops.take("a", doubling(values, called))
        for _ in range(3):
            loop()
        assert loop.tensors[0].tolist() == [8 * value for value in values]
    assert len(captured) == 1
    assert len(set(called)) == 1  # the tensor has the same address


@pytest.mark.parametrize("other", [[1.0, 2.0, 3.0], [1, 2]], ids=["shape", "type"])
def test_a_batch_of_other_sizes_gets_its_own_loop(captured, other):
    loops = GraphCache()
    loops.begin(2)
    first = loops.take("a", doubling([1.0, 2.0], []))
    second = doubling(other, [])
    assert loops.take("a", second) is second
    loops.begin(3)
    third = doubling(other, [])
    assert loops.take("a", third) is third
    assert first is not second


def test_loops_that_are_forgotten_or_too_large_are_not_kept(captured, monkeypatch):
    loops = GraphCache()
    loops.begin(1)
    loops.take("a", doubling([1.0], []))
    loops.forget()
    second = doubling([2.0], [])
    assert loops.take("a", second) is second
    monkeypatch.setattr(module, "CUDA_GRAPH_MAX_KEPT_BYTES", 3)
    loops.forget()
    loops.begin(1)
    loops.take("a", doubling([1.0], []))
    third = doubling([3.0], [])
    assert loops.take("a", third) is third


def test_a_batch_with_enough_memory_keeps_larger_loops_until_one_without_it(captured, monkeypatch):
    monkeypatch.setattr(module, "CUDA_GRAPH_MAX_KEPT_BYTES", 3)
    loops = GraphCache()
    loops.begin(1, roomy=True)
    first = loops.take("a", doubling([1.0], []))
    loops.begin(1, roomy=True)
    assert loops.take("a", doubling([2.0], [])) is first
    loops.begin(1)
    loops.begin(1, roomy=True)
    third = doubling([3.0], [])
    assert loops.take("a", third) is third


def test_a_batch_with_enough_memory_captures_larger_pairformers():
    loops = GraphCache()
    usual = loops.most_pairs
    loops.begin(1, roomy=True)
    assert 5 * 256**2 <= loops.most_pairs < 608**2  # five seeds of 245 tokens are launch-bound, a seed of 600 is not
    assert usual < loops.most_pairs
    loops.begin(1)
    assert loops.most_pairs == usual


def test_a_kept_graph_serves_no_batch_that_may_not_capture(captured):
    """A batch without memory for the graph must not keep the graph of a batch that had it."""
    loops = GraphCache()
    loops.begin(1, roomy=True)
    loops.take("a", doubling([1.0], []))
    loops.begin(1)
    fresh = GraphedLoop(lambda: None, doubling([2.0], []).tensors, fixed=(1,), captures=False)
    assert loops.take("a", fresh) is fresh
    loops.begin(1, roomy=True)
    again = doubling([3.0], [])
    assert loops.take("a", again) is again  # the first one is gone
