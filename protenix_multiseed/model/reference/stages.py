"""The reference stages: upstream's own functions, unchanged, one entry after another. Each is a fast stage's twin."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from protenix_multiseed.features import layout
from protenix_multiseed.model.inputs import Inputs, padded
from protenix_multiseed.model.network import Network
from protenix_multiseed.model.rng import SeedRng
from protenix_multiseed.model.stages import Conditioning, SampleSteps, Stages, StepsDone, TrunkOutput, TrunkSteps


def upstream_features(network: Network, inputs: Inputs, index: int) -> dict[str, Any]:
    """The features of one entry as upstream's modules read them: with ``relp``, and with all tensors on the device.

    Upstream may add and delete keys in the dictionary.
    """
    features = inputs.of_entry(index)
    names = layout.PAIR_TEMPLATE_FEATURES
    features |= {name: layout.place(features[name], network.device) for name in names if name in features}
    made: dict[str, Any] = network.module.relative_position_encoding.generate_relp(features)
    return made


def run_trunk(network: Network, inputs: Inputs, rngs: Sequence[SeedRng]) -> TrunkSteps:
    """Run ``Protenix.get_pairformer_output`` for each entry."""
    made = []
    for index, rng in enumerate(rngs):
        mc_dropout = rng.coin(network.configs.mc_dropout_apply_rate)
        with rng.as_globals():
            made.append(
                network.module.get_pairformer_output(
                    input_feature_dict=upstream_features(network, inputs, index),
                    N_cycle=network.module.N_cycle,
                    inplace_safe=True,
                    chunk_size=network.chunk_size(inputs.owners[index].n_token),
                    mc_dropout=mc_dropout,
                )
            )
        yield StepsDone("trunk", index + 1, len(rngs))
    n = inputs.n_token
    s_inputs, s, z = zip(*made, strict=True)
    return TrunkOutput(
        s_inputs=torch.stack([padded(x, n, 0) for x in s_inputs]),
        s=torch.stack([padded(x, n, 0) for x in s]),
        z=torch.stack([padded(x, n, 0, 1) for x in z]),
    )


def prepare_conditioning(network: Network, inputs: Inputs, trunk: TrunkOutput) -> Conditioning:
    """Run ``prepare_cache`` of the diffusion conditioning and of the atom encoder for each entry."""
    diffusion = network.module.diffusion_module
    pair_conds, atom_pairs, atom_singles = [], [], []
    with network.full_precision("sample_diffusion", inputs.parts[0].n_token):
        for index, part in enumerate(inputs.owners):
            features = upstream_features(network, inputs, index)
            z = trunk.z[index, : part.n_token, : part.n_token].float()
            pair_cond = diffusion.diffusion_conditioning.prepare_cache(features["relp"], z, False)
            names = ("ref_pos", "ref_charge", "ref_mask", "ref_element", "ref_atom_name_chars", "atom_to_token_idx")
            atom_pair, atom_single = diffusion.atom_attention_encoder.prepare_cache(
                **{name: features[name] for name in (*names, "d_lm", "v_lm", "pad_info")},
                r_l=True,
                z=pair_cond,
                inplace_safe=False,
            )
            pair_conds.append(padded(pair_cond, inputs.n_token, 0, 1))
            atom_pairs.append(padded(atom_pair[0], inputs.n_window, 0))
            atom_singles.append(padded(atom_single, inputs.n_atom, 0))
    return Conditioning(
        pair_cond=torch.stack(pair_conds), atom_pair=torch.stack(atom_pairs), atom_single=torch.stack(atom_singles)
    )


def sample(
    network: Network,
    inputs: Inputs,
    trunk: TrunkOutput,
    conditioning: Conditioning,
    rngs: Sequence[SeedRng],
    sample_chunk: int,  # not used: upstream's own chunk size determines the order of its draws
) -> SampleSteps:
    """Run ``Protenix.sample_diffusion`` for each entry -> coordinates [N_entry, N_sample, N_atom, 3], Angstrom."""
    module, settings = network.module, network.configs.sample_diffusion
    made = []
    for index, (part, rng) in enumerate(zip(inputs.owners, rngs, strict=True)):
        n = part.n_token
        s_inputs = trunk.s_inputs[index, :n]
        schedule = module.inference_noise_scheduler(
            N_step=settings.N_step, device=s_inputs.device, dtype=s_inputs.dtype
        )
        with rng.as_globals():
            made.append(
                module.sample_diffusion(
                    denoise_net=module.diffusion_module,
                    input_feature_dict=upstream_features(network, inputs, index),
                    s_inputs=s_inputs,
                    s_trunk=trunk.s[index, :n],
                    z_trunk=None,
                    pair_z=conditioning.pair_cond[index, :n, :n],
                    p_lm=conditioning.atom_pair[index, : part.n_window][None],
                    c_l=conditioning.atom_single[index, : part.n_atom],
                    N_sample=settings.N_sample,
                    noise_schedule=schedule,
                    inplace_safe=True,
                    enable_efficient_fusion=module.enable_efficient_fusion,
                )
            )
        yield StepsDone("sample", index + 1, len(rngs))
    return torch.stack([padded(x, inputs.n_atom, 1) for x in made])


def score(
    network: Network,
    inputs: Inputs,
    trunk: TrunkOutput,
    coordinates: torch.Tensor,
    sample_chunk: int,  # not used: upstream scores one sample at a time
) -> Iterator[dict[str, Any]]:
    """Run the confidence head and the summary for each entry. Yields upstream's output dictionary of each entry."""
    from protenix.model import sample_confidence

    for index, part in enumerate(inputs.owners):
        own, x = trunk.of_entry(index, part.n_token), coordinates[index, :, : part.n_atom]
        logits = network.module.run_confidence_head(
            input_feature_dict=inputs.of_entry(index),
            s_inputs=own.s_inputs,
            s_trunk=own.s,
            z_trunk=own.z,
            pair_mask=None,
            x_pred_coords=x,
            triangle_multiplicative=network.configs.triangle_multiplicative,
            triangle_attention=network.configs.triangle_attention,
            inplace_safe=True,
            chunk_size=network.chunk_size(part.n_token),
        )
        features, summarise = inputs.of_entry(index), sample_confidence._compute_full_data_and_summary
        scores = Scores(network, features, own.z, summarise)
        for place in range(len(x)):  # one sample at a time, as in upstream's wrapper
            one = slice(place, place + 1)
            scores.add(x[one], tuple(each[one] for each in logits))
        yield scores.raw()


class Scores:
    """Builds upstream's output dictionary of one entry from the confidence logits of its samples.

    Args:
        features: Feature dictionary of the entry.
        z: Pair representation of the entry [N_token, N_token, c_z].
        summarise: Upstream's ``_compute_full_data_and_summary``, or a function with the same arguments and result.
    """

    def __init__(
        self, network: Network, features: Mapping[str, Any], z: torch.Tensor, summarise: Callable[..., Any]
    ) -> None:
        from protenix.model import sample_confidence
        from protenix.utils.torch_utils import autocasting_disable_decorator

        full_precision = autocasting_disable_decorator(True)
        self._network, self._features = network, features
        self._summarise = full_precision(summarise)
        self._contact_probs = full_precision(sample_confidence.compute_contact_prob)(
            distogram_logits=network.module.distogram_head(z),
            **sample_confidence.get_bin_params(network.configs.loss.distogram),
        )
        self._coordinates: list[torch.Tensor] = []
        self._summary: list[dict[str, Any]] = []
        self._full: list[dict[str, Any]] = []

    def add(self, coordinates: torch.Tensor, logits: tuple[torch.Tensor, ...]) -> None:
        """Summarise samples in one call and add them.

        Args:
            coordinates: [N_sample, N_atom, 3], Angstrom.
            logits: pLDDT, PAE, PDE and resolved, each [N_sample, ...].
        """
        features = self._features
        plddt, pae, pde, _ = logits
        summary, full = self._summarise(
            configs=self._network.configs,
            pae_logits=pae,
            plddt_logits=plddt,
            pde_logits=pde,
            contact_probs=self._contact_probs,
            token_asym_id=features["asym_id"],
            token_has_frame=features["has_frame"],
            atom_coordinate=coordinates,
            atom_to_token_idx=features["atom_to_token_idx"],
            atom_is_polymer=1 - features["is_ligand"],
            N_recycle=self._network.module.N_cycle,
            return_full_data=True,
        )
        self._summary += summary
        self._full += full
        self._coordinates.append(coordinates)

    def raw(self) -> dict[str, Any]:
        """The output dictionary, as upstream's ``forward`` returns it."""
        return {
            "coordinate": torch.cat(self._coordinates),
            "summary_confidence": self._summary,
            "full_data": self._full,
        }


REFERENCE = Stages(run_trunk=run_trunk, prepare_conditioning=prepare_conditioning, sample=sample, score=score)
