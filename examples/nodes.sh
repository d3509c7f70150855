#!/bin/bash
# Several machines without a scheduler, by ssh: examples/nodes.sh node0 node1 ... The first is this one.
# Each needs some 520 GB of memory: attacker.offload keeps 58 GB for each of its eight workers.
set -euo pipefail
port=6379
ray start --head --port $port --num-gpus 8
for node in "${@:2}"; do
  ssh "$node" ray start --address "$1:$port" --num-gpus 8
done
trap 'for node in "${@:2}"; do ssh "$node" ray stop; done; ray stop' EXIT

# An update of 8 questions occupies 8 workers in the Attacker's phase. --set attacker.questions_per_step=$((8 * $#))
# occupies all, and is another experiment.
sparring run qwen2.5-vl-7b_qwen-image-edit --out runs/paper \
  --set engine.kind=ray --set engine.address=auto --set engine.workers=$((8 * $#)) \
  --set engine.attacker.strategy=fsdp2 --set engine.defender.strategy=fsdp2 \
  --set attacker.offload=true --set data.path=vstar/questions.jsonl
