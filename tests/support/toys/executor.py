"""A toy executor without a model: it returns the features' reference conformers as the prediction of each seed."""

import numpy as np

from protenix_multiseed.types import Failure, Prediction


class ConformerExecutor:
    """See :class:`protenix_multiseed.execution.base.Executor`. It uses no device."""

    def __init__(self, config, workers, tell):
        self._config, self._workers = config, workers

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        pass

    def load(self, tasks, should_stop):
        pass

    def predict(self, tasks, gate):
        jobs = (task.remaining for task in tasks)
        for made in self._workers.featurize(jobs, self._config.feature_settings, lambda: gate.is_closed):
            for features in made:
                if isinstance(features, Failure):
                    yield features
                    continue
                admitted = gate.admit(features.job, [seed.seed for seed in features.seeds])
                for seed in features.only(admitted).seeds:
                    yield conformers(features, seed)

    def facts(self):
        return {"device": "none"}


def conformers(features, seed):
    """A prediction of one sample, with constant scores."""
    n = features.n_token
    return Prediction(
        job=features.job,
        seed=seed.seed,
        coordinates=np.asarray(seed.ref_pos)[None],
        summary=({"ranking_score": 0.5, "plddt": 50.0, "ptm": 0.5, "iptm": 0.0, "has_clash": 0.0},),
        full=({"atom_plddt": np.full(features.n_atom, 0.5), "token_pair_pae": np.full((n, n), 10.0)},),
        atom_array=features.atom_array,
        entity_poly_type=features.entity_poly_type,
    )
