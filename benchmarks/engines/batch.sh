#!/bin/bash
# One training of a sweep, as an element of a Slurm array. Line N + 1 of the task file, quoted for
# the shell, is element N's: the run's work dir, then its command.
#
#   sbatch --array=0-5%2 --requeue --signal=B:USR1@120 batch.sh TASKS
#
# Ends as the run does: 0 finished, 1 failed, 2 unusable input. A run that was told to end because
# its time is nearly over has saved a checkpoint (75) and goes back to the queue from here. What
# Slurm itself ends goes back, where it is to, by --requeue: after preemption, a failed node or
# "scontrol requeue"; not after "scancel".
tasks=$1
eval "set -- $(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$tasks")"
[ $# -gt 1 ] || { echo "error: element $SLURM_ARRAY_TASK_ID is not in $tasks"; exit 2; }
work_dir=$1
shift
element=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

exec >>"$work_dir/console.log" 2>&1

# what it goes on from, and how far its newest launch came
so_far() {
  cat "$work_dir/last_checkpoint"
  grep -h '"iteration"' "$(ls -d "$work_dir"/*/smd/state.json | tail -n 1)"
} 2>/dev/null
before=$(so_far)

export OMP_NUM_THREADS=1  # two spinning threads per process cost more than they bring
# since Slurm 22.05 srun no longer takes this over from the job
[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
# srun would show each process one GPU, as its only one; it takes one of the job's by its number
unset SLURM_GPUS_PER_TASK SLURM_TRES_PER_TASK

# The notice of time running out reaches this script alone; SIGTERM has reached every process.
trap 'kill -USR1 "$run"' USR1
trap : TERM
srun --kill-on-bad-exit=1 "$@" &
run=$!
while kill -0 "$run" 2>/dev/null; do wait "$run"; done  # a signal ends a wait early
wait "$run"
code=$?
[ "$code" = 75 ] || exit "$code"

[ "$(squeue --noheader --jobs="$element" --format=%T)" = RUNNING ] || exit "$code"
if [ "$(so_far)" = "$before" ]; then
  echo "error: told to end before it came any further, so not requeued: is time=… too short?"
  exit "$code"
fi
echo "element $element goes back to the queue"
scontrol requeue "$element"
