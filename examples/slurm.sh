#!/bin/bash
# Two nodes of eight GPUs under SLURM: sbatch examples/slurm.sh. Submitted again, it goes on where it was.
#SBATCH --job-name=sparring
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --exclusive
#SBATCH --mem=0    # all of a node's: attacker.offload keeps 58 GB for each of its eight workers
#SBATCH --time=24:00:00
set -euo pipefail

# The models are on every node: HF_HOME on a shared disk, or filled on each beforehand.
export HF_HOME=${HF_HOME:-$HOME/.cache/huggingface} HF_HUB_OFFLINE=1
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_ADDRESS=$first:6379

# An update of 8 questions occupies 8 of the 16 workers in the Attacker's phase. attacker.questions_per_step=16
# occupies all, and is another experiment.
# The command runs on the first node alone, where the run's folder is written.
srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" \
  ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_NNODES" --num-gpus 8 -- \
  sparring run qwen2.5-vl-7b_qwen-image-edit --out runs/paper \
    --set engine.kind=ray --set engine.workers=16 \
    --set engine.attacker.strategy=fsdp2 --set engine.defender.strategy=fsdp2 \
    --set attacker.offload=true --set data.path=vstar/questions.jsonl
