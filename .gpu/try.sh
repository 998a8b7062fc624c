P=orchestrator/edges/agent/rank_side/collective_trial.py
PY=${PY:-python3}
$PY -c "import torch;print(torch.__version__, torch.cuda.device_count(), torch.cuda.nccl.version())"
ls /sys/class/infiniband 2>/dev/null; ls /sys/class/net
both() {
  echo "== $*"
  for r in 0 1; do
    env MASTER_ADDR=127.0.0.1 MASTER_PORT=$PORT WORLD_SIZE=2 RANK=$r LOCAL_RANK=$r NCCL_DEBUG=WARN "$@" HOSTN=$r \
      sh -c 'if [ -n "$SPLIT" ]; then export NCCL_HOSTID=host$RANK; fi; exec timeout 100 '"$PY"' -u '"$P"' nccl 1073741824' > /tmp/o$r 2>/tmp/e$r &
  done
  wait
  for r in 0 1; do cut -c1-600 /tmp/o$r; tail -n 3 /tmp/e$r | cut -c1-300; done
  PORT=$((PORT+1))
}
PORT=29711
both A=1
both SPLIT=1 NCCL_SOCKET_IFNAME==lo
both SPLIT=1 NCCL_SOCKET_IFNAME==nosuch0
both SPLIT=1 NCCL_SOCKET_IFNAME==lo NCCL_DEBUG_SUBSYS=ALL
