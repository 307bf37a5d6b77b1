#!/usr/bin/env bash
# Run a command on a real Slurm of one node and two slots, made for it and gone after it:
#   bash tests/slurm/with_slurm.sh python -m pytest tests/slurm
# Needs root, and Debian's slurm-wlm and munge, which it installs where they are missing. All that
# its daemons write lies below a temporary folder; the system's own are left alone.
# Exit code: the command's; 77, after a line that says why, where no Slurm can be had here.
set -euo pipefail

cannot() {
  echo "no Slurm for these tests: $1" >&2
  exit 77
}

install() {
  command -v apt-get >/dev/null || cannot "slurmctld, slurmd and munged are missing, and so is apt-get"
  echo "installing Debian's slurm-wlm and munge" >&2
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -q && apt-get install -q -y --no-install-recommends slurm-wlm munge; } \
    >"$1" 2>&1 || { tail -n 3 "$1" >&2; cannot "apt-get could not install slurm-wlm and munge"; }
}

# Ends jobs, then daemons by the ids that they wrote.
stop() {
  local name id
  for _ in {1..30}; do
    timeout 5 scancel --user=root --quiet 2>/dev/null || break
    [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break
    sleep 1
  done
  for name in slurmctld slurmd munged; do
    id=$(cat "$1/$name.pid" 2>/dev/null) || continue
    kill "$id" 2>/dev/null || continue
    for _ in {1..100}; do kill -0 "$id" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$id" 2>/dev/null || true
  done
}

[ "$(id -u)" = 0 ] || cannot "root is needed"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PATH=$PATH:/usr/sbin
for program in slurmctld slurmd munged; do
  command -v $program >/dev/null || { install "$folder/apt.log"; break; }
done

# two ports that nothing listens on
ports=$(python3 - <<'PY'
import socket

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))
PY
)
read -r ctld_port slurmd_port <<<"$ports"
node=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf SMD_TEST_SLURM=1
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$ctld_port
SlurmdPort=$slurmd_port
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
GresTypes=gpu
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
NodeName=$node NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2 State=UNKNOWN
PartitionName=usual Nodes=$node Default=YES MaxTime=INFINITE PriorityTier=1
PartitionName=urgent Nodes=$node MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF
CONF
# devices that stand for GPUs: Slurm hands out their numbers, and nothing opens them
printf "NodeName=$node Name=gpu File=/dev/%s\n" null zero >"$folder/gres.conf"
mkdir "$folder/state" "$folder/spool"
chmod 755 "$folder"
(umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")

trap 'stop "$folder"; rm -rf "$folder"' EXIT
munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
slurmctld
slurmd -N "$node"
for _ in {1..60}; do
  [ "$(sinfo --noheader --format=%T --partition=usual 2>/dev/null)" = idle ] && break
  sleep 0.5
done
[ "$(sinfo --noheader --format=%T --partition=usual 2>/dev/null)" = idle ] || {
  tail -n 5 "$folder"/{munged,slurmctld,slurmd}.log >&2
  echo "Slurm's daemons do not come up" >&2
  exit 1
}
"$@"
