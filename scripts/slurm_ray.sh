#!/bin/bash
# Many GPUs of a SLURM cluster, one command over all of them, with Ray. Change the four lines under "yours".
#   sbatch scripts/slurm_ray.sh
#SBATCH --job-name=protenix-ms
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

# yours
source "$HOME/protenix-ms/.venv/bin/activate"
export PROTENIX_ROOT_DIR="$HOME/protenix"
inputs="jobs.json"
options=(--seeds 1-1000 --out /shared/output --precision fast)

set -euo pipefail
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_USAGE_STATS_ENABLED=0
export RAY_worker_niceness=0 # Ray's 15 lets every other program take processor time from the processes of the GPUs
# Each node starts Ray with its own GPUs. The first node runs the command, and all end with it.
exec srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1 --kill-on-bad-exit=0 \
    ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_NNODES" \
    --num-gpus="$SLURM_GPUS_ON_NODE" --num-cpus="$SLURM_CPUS_PER_TASK" --object-store-memory=100000000 -- \
    protenix-ms predict "$inputs" "${options[@]}" --ray auto
