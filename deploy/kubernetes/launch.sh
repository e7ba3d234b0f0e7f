#!/bin/bash
# What PRIVET_TRAIN_COMMAND may call: brings training.yaml up for one run, waits for the leader, and takes everything down again.
# Gets PROTECT, VALIDATE and RUN_ID in its environment. The token lives as long as the run.
set -euo pipefail
: "${PROTECT:?}" "${VALIDATE:?}" "${RUN_ID:?}"
here="$(cd "$(dirname "$0")" && pwd)"

down() {
  kubectl delete --ignore-not-found --filename "$here/training.yaml" >&2 || true
  kubectl delete --ignore-not-found secret/privet-crew configmap/privet-run >&2 || true
}
trap down EXIT

# From a pipe: an argument would be in every listing of processes.
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' | kubectl create secret generic privet-crew --from-file=token=/dev/stdin >&2
kubectl create configmap privet-run --from-literal=PROTECT="$PROTECT" --from-literal=VALIDATE="$VALIDATE" \
  --from-literal=RUN_ID="$RUN_ID" >&2
kubectl apply --filename "$here/training.yaml" >&2

until [ "$(kubectl get job privet-leader --output 'jsonpath={.status.succeeded}{.status.failed}')" ]; do sleep 5; done
[ "$(kubectl get job privet-leader --output 'jsonpath={.status.succeeded}')" = 1 ]
