# docker build --tag protenix-ms .
# docker run --rm --gpus all --shm-size 64m --volume "$PWD:/work" --volume "$HOME/checkpoint:/protenix/checkpoint" \
#     protenix-ms predict complex.fasta --out results
# Needed: gcc and libc6-dev by Triton, which compiles; libx* and libexpat1 by RDKit. Optional programs: kalign aligns
# templates, mmseqs2 and hmmer search MSAs. docs/install.md says more.
FROM python:3.11-slim-bookworm

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        gcc hmmer kalign libc6-dev libexpat1 libxext6 libxrender1 mmseqs2 \
    && rm -rf /var/lib/apt/lists/*

COPY LICENSE README.md pyproject.toml /opt/protenix-ms/
COPY protenix_multiseed /opt/protenix-ms/protenix_multiseed
# --build-arg EXTRAS=[gpus] adds Ray, for several GPUs.
ARG EXTRAS=""
RUN pip install --no-cache-dir "/opt/protenix-ms${EXTRAS}"

ENV PROTENIX_ROOT_DIR=/protenix \
    PROTENIX_MS_CACHE=/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /work
ENTRYPOINT ["protenix-ms"]
