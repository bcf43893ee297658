"""Jobs and models for tests."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from support import cases

from protenix_multiseed.inputs.dialects import protenix
from protenix_multiseed.inputs.document import Document
from protenix_multiseed.model.fast import FAST
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.reference.predict import to_prediction
from protenix_multiseed.model.stages import Scored, run_stages
from protenix_multiseed.settings import ReadSettings, UpstreamSettings
from protenix_multiseed.types import Batch, Job, Task
from protenix_multiseed.upstream.configs import build_configs
from protenix_multiseed.upstream.models import model_spec


def spec_of(content, folder=Path()):
    """The ``JobSpec`` that the dialect reads from a job in Protenix's format."""
    document = Document(folder / "in.json", json.dumps([{"name": "a", **content}]))
    (parsed,) = protenix.parse(document)
    assert parsed.spec is not None, parsed.problems
    return parsed.spec


def job_of(content=None, *, name="a", seeds=(1,), folder=Path(), **more):
    content = content or {"sequences": [{"ion": {"ion": "MG", "count": 1}}]}
    spec = spec_of({**content, "name": name}, folder)
    return Job(name=name, seeds=tuple(seeds), source=folder / "in.json", index=0, spec=spec, **more)


def task_of(job, identity=None, todo=None):
    return Task(job=job, identity=identity or {}, todo=job.seeds if todo is None else tuple(todo))


def configs_of(model=cases.MODEL, *, cycles=2, steps=10, samples=2, template=True, rna_msa=True, **overrides):
    """Upstream's configuration of a small model."""
    reads = ReadSettings(msa=True, template=template, rna_msa=rna_msa)
    settings = UpstreamSettings(
        model=model, cycles=cycles, steps=steps, samples=samples, reads=reads, overrides={**cases.SMALL, **overrides}
    )
    return build_configs(settings)


def network_of(module, configs, model=cases.MODEL, **more):
    """A network on the CPU."""
    return Network(module=module, configs=configs, spec=model_spec(model), device=torch.device("cpu"), **more)


def batch_of(features, seeds=None, sample_chunk=5):
    """A batch of the features' seeds, or of the given ones among them."""
    chosen = replace(features, seeds=tuple(features.seeds if seeds is None else seeds))
    return Batch(parts=(chosen,), sample_chunk=sample_chunk)


def scored(network, features, seeds=None, stages=FAST, sample_chunk=5):
    """Run the stages on seeds of the features. Returns upstream's output dictionary of each seed, in order."""
    steps = run_stages(stages, network, batch_of(features, seeds, sample_chunk))
    return [step.raw for step in steps if isinstance(step, Scored)]


def predictions(network, features, seeds=None, stages=FAST, sample_chunk=5):
    """Run the stages like :func:`scored`. Returns the prediction of each seed, in order."""
    seeds = features.seeds if seeds is None else seeds
    made = scored(network, features, seeds, stages, sample_chunk)
    return [to_prediction(raw, features, seed.seed, full=True) for seed, raw in zip(seeds, made, strict=True)]


class OpenGate:
    """A gate that admits every seed and never stops the run."""

    is_closed = False
    time_is_up = False

    def admit(self, job, seeds):
        return seeds

    def needs_no_more(self, job):
        return False

    def wait_until_known(self):
        pass
