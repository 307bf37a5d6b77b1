#!/usr/bin/env bash
# What only a GPU can show, part by part:
#   bash benchmarks/gpu.sh [PART ...]        default: all of them, in the order below
# Each part's figures go to results/gpu/, with command, commit, device and date in them. A part
# whose figures are there is not run again, and a sweep goes on with the runs that it lacks: what
# was cut off is simply called once more.
#   IMAGENETTE=DIR NUCLEI=DIR   data sets in ImageNet's and COCO's layout for the replicas; without
#                               them these take the demo's digits
set -euo pipefail
cd "$(dirname "$0")/.."

PARTS=(tests measure optim train fig2 fig3-imagenet fig3-coco optimizers gpt)
OUT=results/gpu
PYTHON=${PYTHON:-python}

fail() { echo "error: $*" >&2; exit 2; }

# Puts what a command prints into a file, which is there only if the command came to its end.
into() {
    local file=$1
    shift
    "$@" >"$file.part"
    mv "$file.part" "$file"
}

# Sweeps one experiment: sweep SUITE EXPERIMENT RESULTS [DATA]
sweep() {
    local data=()
    [ -z "${4:-}" ] || data=("$4")
    $PYTHON -m benchmarks sweep "$1" --replica "${data[@]}" --only "$2" --results "$3"
}

tests() {
    $PYTHON -c 'from benchmarks.provenance import provenance
print("# The tests that need a GPU\n", *provenance("python -m pytest -m gpu -q", 0), "", sep="\n")'
    $PYTHON -m pytest -m gpu -q
}

part() {
    case $1 in
    tests) into "$OUT/tests.md" tests ;;
    measure) into "$OUT/measure.md" $PYTHON -m benchmarks speed measure --training-step ;;
    optim | train) into "$OUT/$1.md" $PYTHON -m benchmarks speed "$1" ;;
    fig2) sweep suites/smd.py smd-fig2 "$OUT/fig2" "${IMAGENETTE:-}" ;;
    fig3-imagenet) sweep suites/smd.py smd-fig3-imagenet "$OUT/$1" "${IMAGENETTE:-}" ;;
    fig3-coco) sweep suites/smd.py smd-fig3-coco "$OUT/$1" "${NUCLEI:-}" ;;
    optimizers)
        sweep suites/normalized_optimizers.py optimizers-imagenet "$OUT/$1" "${IMAGENETTE:-}"
        ;;
    gpt) sweep suites/warmup.py warmup-gpt "$OUT/$1" ;;
    esac
}

asked=("$@")
[ $# -gt 0 ] || asked=("${PARTS[@]}")
for name in "${asked[@]}"; do
    [[ " ${PARTS[*]} " == *" $name "* ]] || fail "no part '$name'; there are ${PARTS[*]}"
done
$PYTHON -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' ||
    fail "torch sees no GPU here; every figure that needs none comes from the README's commands"
mkdir -p "$OUT"
for name in "${asked[@]}"; do
    if [ -e "$OUT/$name.md" ] || [ -e "$OUT/$name/README.md" ]; then
        echo "$name: there already"
    else
        echo "$name"
        part "$name"
    fi
done
