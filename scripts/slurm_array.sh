#!/bin/bash
# Many GPUs of a SLURM cluster without Ray: each task of the array is one process with one GPU, and all write to one
# folder. Tasks may start and end at any time. Change the four lines under "yours".
#   sbatch --array=1-32 scripts/slurm_array.sh
#SBATCH --job-name=protenix-ms
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@240
#SBATCH --requeue
#SBATCH --open-mode=append

# yours
source "$HOME/protenix-ms/.venv/bin/activate"
export PROTENIX_ROOT_DIR="$HOME/protenix"
inputs="jobs.json"
options=(--seeds 1-1000 --out /shared/output --precision fast)

exec protenix-ms predict "$inputs" "${options[@]}"
