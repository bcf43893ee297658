"""Options and commands as neighbouring programs name them. Pure functions.

An option of Protenix, AlphaFold 3, Boltz, Chai or ColabFold that means the same here is translated. One that means
something else is refused with the option to use instead.
"""

from collections.abc import Iterator, Sequence

from protenix_multiseed.errors import ConfigError

COMMANDS = {"pred": "predict"}
_INPUT = frozenset({"-i", "--input", "--input_json_path", "--json_path"})  # here an argument without a name
_ALIASES = {
    "-n": "--model",
    "-V": "--version",
    "--cycle": "--cycles",
    "--diffusion_samples": "--samples",
    "--model_name": "--model",
    "--msa_server_url": "--msa-server",
    "--num_diffusion_samples": "--samples",
    "--num_diffn_timesteps": "--steps",
    "--out_dir": "--out",
    "--output_dir": "--out",
    "--sample": "--samples",
    "--sampling_steps": "--steps",
    "--seed": "--seeds",
    "--step": "--steps",
}
_NUMBER_OF_SEEDS = "--num_seeds"
_PROGRAM = "put the program on PATH"
_RNA = "use the key rna_databases in the file of --config, or 'protenix-ms msa --rna-database'"
_RECYCLES = "it counts the passes after the first one: for N recycles use --cycles N+1"
_HINTS = {
    "-d": "use the key upstream: {dtype: bf16} in the file of --config",
    "-e": "use --samples",
    "-p": "use --steps",
    "--dtype": "use the key upstream: {dtype: bf16} in the file of --config",
    "--enable_cache": "leave it out: it is decided for the GPU at hand",
    "--enable_fusion": "leave it out: it is decided for the GPU at hand",
    "--enable_tf32": "leave it out: products are in bfloat16 or 32 bits, as the model has them",
    "--hmmalign_binary_path": _PROGRAM,
    "--hmmbuild_binary_path": _PROGRAM,
    "--hmmbuild_rna_binary_path": _PROGRAM,
    "--hmmsearch_binary_path": "search templates with 'protenix mt', and name them in the input",
    "--kalign_binary_path": "use the key templates: {kalign: PATH} in the file of --config",
    "--load_checkpoint_dir": "use --checkpoint, which names the file",
    "--model_dir": "use --checkpoint, which names the file, or set PROTENIX_ROOT_DIR",
    "--msa_server_mode": "name the server: --msa-server URL",
    "--need_atom_confidence": "use --full-confidence",
    "--num_models": "each seed gives --samples structures of one model",
    "--num_recycle": _RECYCLES,
    "--num_recycles": _RECYCLES,
    "--num_trunk_recycles": _RECYCLES,
    "--nhmmer_binary_path": _PROGRAM,
    "--nhmmer_n_cpu": "use --workers",
    "--ntrna_database_path": _RNA,
    "--recycling_steps": _RECYCLES,
    "--rfam_database_path": _RNA,
    "--rna_central_database_path": _RNA,
    "--seqres_database_path": "search templates with 'protenix mt', and name them in the input",
    "--triatt_kernel": "use --kernels",
    "--trimul_kernel": "use --kernels",
    "--use_default_params": "leave it out: the model's own settings are the default",
    "--use_msa": "use --msa or --no-msa",
    "--use_msa_server": "name the server, so that sequences are sent only where you want: --msa-server URL",
    "--use_rna_msa": "use --rna-msa or --no-rna-msa",
    "--use_seeds_in_json": "leave --seeds out: then each job has the seeds of its file",
    "--use_template": "use --template or --no-template",
    "--use_tfg_guidance": "use --guidance",
}


def translate(arguments: Sequence[str]) -> list[str]:
    """Return a command line with this program's own options and commands.

    Raises:
        ConfigError: if an option means something else here. The message says which one to use.
    """
    return list(_translated(arguments))


def _translated(arguments: Sequence[str]) -> Iterator[str]:
    rest = iter(arguments)
    for place, argument in enumerate(rest):
        name, equals, value = argument.partition("=")
        name = "--" + name[2:].replace("-", "_") if name.startswith("--") else name
        if argument == "--":
            yield argument
            yield from rest
        elif place == 0 and argument in COMMANDS:
            yield COMMANDS[argument]
        elif name in _HINTS:
            raise ConfigError(f"{argument.partition('=')[0]}: an option of another program; {_HINTS[name]}")
        elif name in _INPUT:
            yield from ([value] if equals else [])
        elif name == _NUMBER_OF_SEEDS:
            count = value if equals else next(rest, "")
            yield f"--seeds={f'1-{count}' if count.isdigit() and int(count) > 1 else count}"
        elif name == "-c" and not equals:
            value = next(rest, "")
            if value.isdigit():
                raise ConfigError(f"-c {value}: -c names a configuration file here; use --cycles {value}")
            yield from (argument, value)
        elif name in _ALIASES:
            yield _ALIASES[name] + equals + value
        elif name.startswith("--"):
            yield name.replace("_", "-") + equals + value
        else:
            yield argument
