# shellcheck shell=bash
# What the scripts beside this file share. Each sets ALL_STEPS and OUTPUT, sources this file, defines one function for
# each step, and calls `run_steps "$@"`.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" # both packages, wherever the script is called from
PYTHON="${PYTHON:-python}"
read -ra LAUNCH <<<"${LAUNCH:-accelerate launch}"
read -ra TRAIN_FLAGS <<<"${TRAIN_FLAGS:-}"

say() { printf '== %s\n' "$*"; }

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 2
}

# need NAME MEANING: the variable NAME is set.
need() { [[ -n "${!1:-}" ]] || die "$1 is not set: $2. See --help."; }

# once NAME COMMAND...: run the command unless it came to its end before. The mark is written last.
once() {
    local name="$1" mark="$OUTPUT/done/$1"
    shift
    if [[ -f "$mark" ]]; then
        say "$name: done before"
        [[ "$(<"$mark")" == "$*" ]] || say "$name: by another command than now; to do it again: rm $mark"
        return
    fi
    say "$name: $*"
    supervise "$@"
    mkdir -p "$OUTPUT/done"
    printf '%s\n' "$*" >"$mark.unfinished"
    mv "$mark.unfinished" "$mark"
}

# supervise COMMAND...: SIGTERM and SIGINT reach the command and all it started, which may save; then this script ends.
supervise() {
    local child code=0 stopped=""
    set -m # a process group of its own
    "$@" &
    child=$!
    set +m
    trap 'stopped=yes; kill -TERM -- "-$child" 2>/dev/null || true' TERM INT
    wait "$child" || code=$?
    while kill -0 -- "-$child" 2>/dev/null; do sleep 0.2; done # what it started may still be saving
    trap - TERM INT
    if [[ -n "$stopped" ]]; then
        say "stopped; the same command goes on from here"
        exit 143
    fi
    ((code == 0)) || die "ended with $code: $*"
}

# prepare_dataset NAME FLAGS...: a source as a prepared folder; a preparation that was stopped goes on.
prepare_dataset() {
    local name="$1"
    shift
    local flags=(--source "$name" --output "$OUTPUT/$name" "$@")
    [[ -z "${LIMIT:-}" ]] || flags+=(--limit "$LIMIT")
    [[ -z "${NUM_WORKERS:-}" ]] || flags+=(--num_workers "$NUM_WORKERS")
    once "prepare-$name" "$PYTHON" -m datasets_scripts prepare "${flags[@]}"
}

# train_model FLAGS...: a training that was stopped goes on from its last whole checkpoint.
train_model() {
    local flags=("$@" --output_dir "$OUTPUT/model" --resume_from_checkpoint latest)
    [[ -z "${LICENSE:-}" ]] || flags+=(--license "$LICENSE")
    once train "${LAUNCH[@]}" "$ROOT/train_accelerate.py" "${flags[@]}" ${TRAIN_FLAGS[@]+"${TRAIN_FLAGS[@]}"}
}

# describe_findings FOLDER: the Cardio Query Assistant says what each finding looks like, with sources beside it.
describe_findings() {
    if [[ -n "${WAVEFORMS:-}" ]]; then
        say "describe: WAVEFORMS is given: skipped"
        return
    fi
    [[ -d "$1" ]] || die "describe: no data set in $1; run the step prepare first"
    local flags
    read -ra flags <<<"${DESCRIBE_FLAGS:-}"
    once describe "$PYTHON" -m datasets_scripts.cqa describe --dataset "$1" --output "$OUTPUT/waveforms.json" \
        ${flags[@]+"${flags[@]}"}
}

# described_options: the dataset options that put the descriptions of the step describe into the texts.
described_options() {
    if [[ -z "${WAVEFORMS:-}" && -f "$OUTPUT/waveforms.json" ]]; then
        printf '{"waveforms": "%s"}' "$OUTPUT/waveforms.json"
    else
        printf '{}'
    fi
}

# evaluate_model FOLDER: the protocols on a prepared data set; what PTB-XL's codes stand for is told by its own folder.
evaluate_model() {
    [[ -f "$OUTPUT/model/config.json" ]] || die "evaluate: no model in $OUTPUT/model; run the step train first"
    local protocol flags=(--model "$OUTPUT/model" --dataset "$1")
    [[ -z "${PTB_XL:-}" ]] || flags+=(--data_dir "$PTB_XL")
    for protocol in zero_shot linear_probe fine_tune identification; do
        once "evaluate-$protocol" "$PYTHON" -m modeling_esi.evaluation "$protocol" "${flags[@]}" \
            --output "$OUTPUT/results/$protocol"
    done
    say "evaluate: what train measured on its own test split is in $OUTPUT/model/results.json"
}

check_card() {
    [[ -f "$OUTPUT/model/README.md" ]] || die "card: no $OUTPUT/model/README.md; train writes it at its end"
    local found results=()
    for found in "$OUTPUT"/results/*/results.json; do
        if [[ "$found" -nt "$OUTPUT/model/config.json" ]]; then
            results+=("$(dirname "$found")")
        elif [[ -f "$found" ]]; then
            say "card: $found is older than the model: left out; to judge again: rm $OUTPUT/done/evaluate-*"
        fi
    done
    "$PYTHON" -m modeling_esi.hub card "$OUTPUT/model" ${results[@]+--results "${results[@]}"} ||
        die "card: the results did not come into $OUTPUT/model/README.md"
}

push_model() {
    if [[ -z "${HUB_MODEL_ID:-}" ]]; then
        say "push: HUB_MODEL_ID is not set: skipped"
        return
    fi
    [[ -f "$OUTPUT/model/README.md" ]] || die "push: no model with a card in $OUTPUT/model; run the step train first"
    once push "$PYTHON" -m modeling_esi.hub push "$OUTPUT/model" "$HUB_MODEL_ID"
}

# The steps to run: STEPS, or the flags; all where neither is given.
choose_steps() {
    local first="" only="" step
    while (($#)); do
        case "$1" in
            --help | -h)
                sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p;}' "$0"
                exit 0
                ;;
            --from | --only)
                (($# > 1)) || die "$1: expected a step of: $ALL_STEPS"
                if [[ "$1" == --from ]]; then first="$2"; else only="$2"; fi
                shift 2
                ;;
            *) die "expected --from STEP, --only STEP or --help, got $1" ;;
        esac
    done
    for step in $first $only ${STEPS:-}; do
        [[ " $ALL_STEPS " == *" $step "* ]] || die "no step $step; expected some of: $ALL_STEPS"
    done
    [[ -z "$only" ]] || STEPS="$only"
    [[ -z "$first" ]] || STEPS="$first${ALL_STEPS#*"$first"}"
    STEPS="${STEPS:-$ALL_STEPS}"
}

run_steps() {
    choose_steps "$@"
    mkdir -p "$OUTPUT"
    if command -v flock >/dev/null; then # held by whatever this run started, too
        exec 9>"$OUTPUT/lock"
        flock -n 9 || die "another run, or what it left behind, is at work in $OUTPUT; wait for it or end it"
    fi
    local step
    for step in $ALL_STEPS; do
        if [[ " $STEPS " == *" $step "* ]]; then "step_$step"; fi
    done
    say "all done: $OUTPUT"
}
