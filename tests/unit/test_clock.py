"""Steps on a GPU are told when they are finished, not when they are launched. A made-up GPU takes its time."""

import pytest
import torch

from protenix_multiseed.model import stages
from protenix_multiseed.model.stages import StepsDone, Waiting


class Gpu:
    """Finishes one of the launched pieces of work each time that it is asked ``patience`` times."""

    def __init__(self, patience):
        self.patience, self.asked, self.launched, self.finished = patience, 0, 0, 0

    def event(self):
        return Event(self)


class Event:
    def __init__(self, gpu):
        self.gpu, self.place = gpu, None

    def record(self, stream):
        self.gpu.launched += 1
        self.place = self.gpu.launched

    def query(self):
        self.gpu.asked += 1
        if self.gpu.asked % self.gpu.patience == 0:
            self.gpu.finished = min(self.gpu.finished + 1, self.gpu.launched)
        return self.place <= self.gpu.finished


@pytest.fixture
def gpu(monkeypatch):
    made = Gpu(patience=4)
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(stages, "WAITING_SECONDS", 0.0)
    return made


def launched(n):
    for done in range(n):
        yield StepsDone("sample", done + 1, n)
    return "result"


def test_a_gpus_steps_come_when_they_are_finished(gpu):
    clock, told, made = stages._Clock(torch.device("cuda")), [], []

    def run():
        made.append((yield from clock.follow(launched(20))))
        yield from clock.lap("sample")

    for step in run():
        assert isinstance(step, Waiting) or step.done <= gpu.finished
        told.append(step)
    steps = [step.done for step in told if isinstance(step, StepsDone)]
    assert made == ["result"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 20  # the last step is told, before the next stage begins
    assert len(steps) > 1
    assert sum(isinstance(step, Waiting) for step in told) > 5  # the caller can stop the stages while the GPU works
    assert clock.seconds["sample"] >= 0


def test_a_cpus_steps_come_as_they_are():
    clock, made = stages._Clock(torch.device("cpu")), []

    def run():
        made.append((yield from clock.follow(launched(3))))
        yield from clock.lap("sample")

    assert [step.done for step in run()] == [1, 2, 3]
    assert made == ["result"]
