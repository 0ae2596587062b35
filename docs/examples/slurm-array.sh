#!/bin/bash
# A sweep as a Slurm job array: sbatch docs/examples/slurm-array.sh
# Eight tasks share the sweep's folder; each trains an eighth of the runs. Submitted again, it goes on.
#SBATCH --job-name=cqat-bits
#SBATCH --array=0-7
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=cqat-bits-%a.out
set -eu

SWEEP=${SWEEP:-configs/sweeps/bits.yaml}
OUT=${OUT:-/scratch/$USER/bits}
DATA=${DATA:-/scratch/$USER/cifar-100-binary}

# --signal asks for a stop two minutes before the time is up: every run saves, and the next submission resumes it.
# srun does not take over --cpus-per-task by itself. The count of shards is that of --array, also where one task is submitted again alone.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" cqat sweep "$SWEEP" --out "$OUT" --data "$DATA" --shard "$SLURM_ARRAY_TASK_ID/8"
