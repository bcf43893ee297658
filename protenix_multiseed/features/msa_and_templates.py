"""The features of a job's MSAs and templates, made by upstream's featurizers from the files that the job names."""

import tempfile
from collections import Counter
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
from protenix_multiseed.files import write_bytes
from protenix_multiseed.inputs.corrections import corrected
from protenix_multiseed.settings import FeatureSettings, UpstreamSettings
from protenix_multiseed.types import Job
from protenix_multiseed.upstream.configs import build_configs
from protenix_multiseed.upstream.environment import replaced
from protenix_multiseed.upstream.job_dict import sequences_of
from protenix_multiseed.upstream.models import DEFAULT_MODEL

_GAP = 31  # upstream's number of a gap in MSA features
MAX_TEMPLATES, LAST_DATE = 4, "2021-09-30"  # as in upstream's InferenceTemplateFeaturizer
_EXCLUDED, _TOO_NEW = "failed prefilter: ", f"released after {LAST_DATE}, or without a date"
_EXCLUSIONS = {
    "after cutoff": _TOO_NEW,
    "Align ratio": "aligned to a tenth of the protein or less",
    "duplicate": "nearly equal to the protein",
    "too short": "of fewer than 10 residues",
}


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
) -> tuple[dict[str, np.ndarray], "HitReporter | None"]:
    """Return the template features in the compact layout, and what became of the hits of a search, if there are any."""
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
    return arrays, finder


def with_hits(job: Job, settings: FeatureSettings) -> FeatureSettings:
    """Return the settings for upstream, which needs kalign and structures only if the job names hits of a search."""
    has_hits = any(polymer.templates for _, polymer in job.spec.polymers())
    return replace(settings, reads=replace(settings.reads, template=settings.reads.template and has_hits))


class HitReporter:
    """Wraps upstream's template featurizer and records the hits that it drops silently, to report them to the user.

    Attributes:
        skipped: A sentence for each hit that failed, for example because its structure could not be fetched.
        unused: A sentence for each protein with fewer templates than upstream takes, about hits that its rules exclude.
    """

    def __init__(self, featurizer: TemplateHitFeaturizer) -> None:
        self._featurizer = featurizer
        self.skipped: list[str] = []
        self.unused: list[str] = []

    def get_templates(self, **arguments: Any) -> Any:
        """Call ``TemplateHitFeaturizer.get_templates`` and record the dropped hits."""
        processor, tried = self._featurizer._hit_processor, []
        original = processor.process

        def process(*given: Any) -> Any:
            made = original(*given)
            tried.append(made[0])
            return made

        with replaced(processor, "process", process):
            result, seconds = self._featurizer.get_templates(**arguments)
        self.skipped.extend(f"template hit skipped: {error}" for error in result.errors)
        excluded = Counter(_exclusion(text) for text in result.warnings if _EXCLUDED in text)
        # Of a structure that is too new, upstream says nothing.
        excluded[_TOO_NEW] += sum(not (one.features or one.error) for one in tried)
        if (reasons := [f"{count} {reason}" for reason, count in excluded.items() if count]) and (
            len(result.features) < MAX_TEMPLATES
        ):
            sequence = arguments["query_sequence"]
            self.unused.append(
                f"{len(result.features)} of {len(arguments['hits'])} template hits are used for the protein "
                f"{sequence[:12]}{'...' if len(sequence) > 12 else ''} ({len(sequence)} residues); "
                f"Protenix does not use {', '.join(reasons)}"
            )
        return result, seconds


def _exclusion(text: str) -> str:
    """Return why upstream excludes a hit, as the end of a sentence."""
    return next((reason for sign, reason in _EXCLUSIONS.items() if sign in text), text.partition(_EXCLUDED)[2])


@lru_cache(maxsize=1)
def _hit_featurizer(settings: FeatureSettings) -> TemplateHitFeaturizer:
    configs = dataset_configs(settings, Path("unused.json"))
    template = configs.data.template
    made = TemplateHitFeaturizer(
        mmcif_dir=template.prot_template_mmcif_dir,
        template_cache_dir=template.prot_template_cache_dir,
        max_hits=MAX_TEMPLATES,
        kalign_binary_path=template.kalign_binary_path,
        max_template_date=LAST_DATE,
        release_dates_path=template.release_dates_path,
        obsolete_pdbs_path=template.obsolete_pdbs_path,
        _shuffle_top_k_prefiltered=None,
        _max_template_candidates_num=20,
        fetch_remote=settings.fetch_template_structures,
    )
    if settings.fetch_template_structures:
        fetch_whole_files(made)
    return made


def fetch_whole_files(featurizer: TemplateHitFeaturizer) -> None:
    """Let upstream fetch a structure into a scratch folder, and move the whole file from there.

    It writes the file in place, where other workers would take a part of it for the structure.
    """
    processor: Any = featurizer._hit_processor
    fetch, folder = processor._fetch_or_read_cif, Path(processor._mmcif_dir)

    def fetch_whole(pdb_id: str) -> str:
        path = folder / f"{pdb_id}.cif"
        if not path.exists():
            with tempfile.TemporaryDirectory() as scratch, replaced(processor, "_mmcif_dir", scratch):
                text = fetch(pdb_id)
            write_bytes(path, text.encode())
        return str(processor._read_file(str(path)))

    processor._fetch_or_read_cif = fetch_whole


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
