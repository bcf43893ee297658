#!/bin/bash
# Many GPUs of a SLURM cluster, one command over all of them, with Ray. Change the four lines under "yours".
#   sbatch scripts/slurm_ray.sh
#SBATCH --job-name=protenix-ms
#SBATCH --nodes=4
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@240
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH --open-mode=append

# yours
source "$HOME/protenix-ms/.venv/bin/activate"
export PROTENIX_ROOT_DIR="$HOME/protenix"
inputs="jobs.json"
options=(--seeds 1-1000 --out /shared/output --precision fast)

set -euo pipefail
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
export RAY_USAGE_STATS_ENABLED=0
export RAY_worker_niceness=0 # Ray's 15 lets every other program take processor time from the processes of the GPUs
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 # seconds until all nodes must have joined; Ray's 30 are too few
# Each node starts Ray with its own GPUs. The first node runs the command, and all end with it.
number=$(mktemp) # of the command's process
trap 'rm -f "$number"' EXIT
srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    --kill-on-bad-exit=0 --no-kill \
    ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_NNODES" \
    --num-gpus="$SLURM_GPUS_ON_NODE" --num-cpus="$SLURM_CPUS_PER_TASK" --object-store-memory=100000000 -- \
    bash -c 'echo $$ >"$0"; exec "$@"' "$number" protenix-ms predict "$inputs" "${options[@]}" --ray auto &
step=$!
# SLURM signals this script alone (B:), which runs on the first node too. It passes the signal to the command, which
# then writes and ranks what is finished. Ray, if it got the signal, would kill the command.
trap 'if [[ -s "$number" ]]; then kill -TERM "$(cat "$number")" || true; else kill -TERM "$step" || true; fi' TERM
while true; do
    wait "$step" && status=0 || status=$?
    kill -0 "$step" 2>/dev/null || break
done
if [[ ! -s "$number" ]]; then
    echo "the command was never started: see what Ray says above" >&2
    exit $((status == 0 ? 1 : status))
fi
exit "$status"
