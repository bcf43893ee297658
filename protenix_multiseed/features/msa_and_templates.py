"""The features of a job's MSAs and templates, made by upstream's featurizers from the files that the job names."""

from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from biotite.structure import AtomArray
from protenix.data.msa.msa_featurizer import InferenceMSAFeaturizer
from protenix.data.template import template_featurizer
from protenix.data.template.template_utils import TemplateHitFeaturizer
from protenix.utils.torch_utils import dict_to_tensor

from protenix_multiseed.features import layout
from protenix_multiseed.features.own_templates import with_structures
from protenix_multiseed.inputs.corrections import corrected
from protenix_multiseed.settings import FeatureSettings, UpstreamSettings
from protenix_multiseed.types import Job
from protenix_multiseed.upstream.configs import build_configs
from protenix_multiseed.upstream.environment import replaced
from protenix_multiseed.upstream.job_dict import sequences_of
from protenix_multiseed.upstream.models import DEFAULT_MODEL

_GAP = 31  # upstream's number of a gap in MSA features


def msa_arrays(
    job: Job, settings: FeatureSettings, atom_array: AtomArray, restype: torch.Tensor
) -> dict[str, np.ndarray]:
    """Return the MSA features. Without an MSA, each chain's sequence is its only row.

    Args:
        restype: One-hot residue types [N_token, 32].
    """
    made = {}
    if settings.reads.msa:
        made = dict_to_tensor(
            InferenceMSAFeaturizer.make_msa_feature(
                bioassembly=sequences_of(corrected(job.spec, settings.reads)),
                atom_array=atom_array,
                msa_pair_as_unpair=settings.msa_pair_as_unpair,
                use_rna_msa=settings.reads.rna_msa,
            )
        )
    if not made:  # as upstream's make_dummy_feature
        msa = restype.argmax(-1).numpy().astype(np.int8)[None]
        return {
            "msa": msa,
            "deletion_matrix": np.zeros_like(msa),
            "profile": restype.numpy(),
            "deletion_mean": np.zeros(len(restype), dtype=np.float32),
        }
    return {
        "msa": made["msa"].numpy().astype(np.int8),
        "deletion_matrix": made["deletion_matrix"].numpy(),
        "profile": made["profile"].numpy(),
        "deletion_mean": made["deletion_mean"].numpy(),
    }


def template_arrays(
    job: Job, settings: FeatureSettings, atom_array: AtomArray
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the template features in the compact layout, and a warning for each hit that upstream drops."""
    finder = HitReporter(_hit_featurizer(settings)) if with_hits(job, settings).reads.template else None
    assembled = template_featurizer.Templates
    with ExitStack() as stack:
        # leave out the pair features, because expand() makes them
        stack.enter_context(replaced(assembled, "as_protenix_dict", assembled.as_data_dict))
        if settings.reads.template:
            stack.enter_context(with_structures(job.spec))
        made = template_featurizer.InferenceTemplateFeaturizer.make_template_feature(
            bioassembly=sequences_of(corrected(job.spec, settings.reads)),
            atom_array=atom_array,
            use_template=settings.reads.template,
            online_template_featurizer=finder,
        )
    arrays = layout.compact_templates(
        made["template_aatype"], made["template_atom_positions"], made["template_atom_mask"]
    )
    return arrays, tuple(finder.skipped) if finder else ()


def with_hits(job: Job, settings: FeatureSettings) -> FeatureSettings:
    """Return the settings for upstream, which needs kalign and structures only if the job names hits of a search."""
    has_hits = any(polymer.templates for _, polymer in job.spec.polymers())
    return replace(settings, reads=replace(settings.reads, template=settings.reads.template and has_hits))


class HitReporter:
    """Wraps upstream's template featurizer and records the hits that it drops silently, to report them to the user."""

    def __init__(self, featurizer: TemplateHitFeaturizer) -> None:
        self._featurizer = featurizer
        self.skipped: list[str] = []

    def get_templates(self, **arguments: Any) -> Any:
        """Call ``TemplateHitFeaturizer.get_templates`` and record the dropped hits."""
        result, seconds = self._featurizer.get_templates(**arguments)
        self.skipped.extend(f"template hit skipped: {error}" for error in result.errors)
        return result, seconds


@lru_cache(maxsize=1)
def _hit_featurizer(settings: FeatureSettings) -> TemplateHitFeaturizer:
    configs = dataset_configs(settings, Path("unused.json"))
    template = configs.data.template
    return TemplateHitFeaturizer(
        mmcif_dir=template.prot_template_mmcif_dir,
        template_cache_dir=template.prot_template_cache_dir,
        max_hits=4,
        kalign_binary_path=template.kalign_binary_path,
        max_template_date="2021-09-30",
        release_dates_path=template.release_dates_path,
        obsolete_pdbs_path=template.obsolete_pdbs_path,
        _shuffle_top_k_prefiltered=None,
        _max_template_candidates_num=20,
        fetch_remote=settings.fetch_template_structures,
    )


def dataset_configs(settings: FeatureSettings, input_json: Path) -> Any:
    """Return the configuration of upstream's ``InferenceDataset``."""
    overrides: dict[str, Any] = {}
    if settings.template_mmcif_dir:
        overrides["data.template.prot_template_mmcif_dir"] = str(settings.template_mmcif_dir)
    if settings.kalign:
        overrides["data.template.kalign_binary_path"] = str(settings.kalign)
    configs = build_configs(
        UpstreamSettings(model=DEFAULT_MODEL, reads=settings.reads, guidance=settings.guidance, overrides=overrides)
    )
    configs.input_json_path = str(input_json)
    configs.msa_pair_as_unpair = settings.msa_pair_as_unpair
    with configs.unlocked():
        configs.data.template.fetch_remote = settings.fetch_template_structures
    return configs


def msa_rows(msa: np.ndarray, chain: np.ndarray) -> np.ndarray:
    """Return the number of distinct rows of residues in the MSA of each token's chain, its sequence included [N_token].

    Upstream repeats rows: the sequence, and rows that are paired with other chains' rows.

    Args:
        msa: Residue types [N_row, N_token].
        chain: Index of each token's chain [N_token].
    """
    rows = np.zeros(len(chain), dtype=np.int64)
    for one in np.unique(chain):
        part = msa[:, chain == one]
        rows[chain == one] = len({row.tobytes() for row in part[(part != _GAP).any(axis=1)]})
    return rows
