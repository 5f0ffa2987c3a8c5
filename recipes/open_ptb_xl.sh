#!/usr/bin/env bash
# PTB-XL alone, from its published folder to a model: prepare -> describe -> train -> evaluate -> card -> push.
#
#   PTB_XL=physionet.org/files/ptb-xl/1.0.3 recipes/open_ptb_xl.sh
#   recipes/open_ptb_xl.sh --from train      this step and all after it
#   recipes/open_ptb_xl.sh --only evaluate   this step alone; STEPS="train evaluate" recipes/open_ptb_xl.sh: these two
#
# The same command goes on where it was stopped, and does nothing twice. Trains on folds 1-8 by recipes/ptb_xl.yaml and
# judges on fold 10. Needs PTB-XL (CC BY 4.0) and nothing else. What is not built yet is said.
#
#   PTB_XL         folder of PTB-XL 1.0.3, as published; needed by prepare
#   WAVEFORMS      JSON file: statement -> what it looks like in an ECG; told behind the findings
#   DESCRIBED      yes: train on the label statements and what they look like, not on the reports (label-supervised)
#   DESCRIBE_FLAGS more flags of python -m datasets_scripts.cqa describe, such as a chat model to ask
#   OUTPUT         folder for all results (esi-ptb-xl); its folder done/ says what is done
#   RECIPE         recipe of the training (recipes/ptb_xl.yaml)
#   LAUNCH         what starts it (accelerate launch): "accelerate launch --config_file recipes/accelerate/1_gpu.yaml"
#   TRAIN_FLAGS    more flags of train_accelerate.py, parted by spaces
#   LIMIT          at most so many records of each split; NUM_WORKERS: processes that prepare
#   LICENSE        licence of the weights, for the card; HUB_MODEL_ID: name/repository for push, which is else skipped
set -euo pipefail

ALL_STEPS="prepare describe train evaluate card push"
OUTPUT="${OUTPUT:-esi-ptb-xl}"
# shellcheck source=recipes/steps.sh
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

step_prepare() {
    need PTB_XL "the folder of PTB-XL"
    local flags=(--data_dir "$PTB_XL" --sampling_rate 100 --task all) # of all codes: evaluate judges all six tasks
    [[ -z "${WAVEFORMS:-}" ]] || flags+=(--text statements --waveforms "$WAVEFORMS")
    prepare_dataset ptb_xl "${flags[@]}"
}

step_describe() {
    if [[ "${DESCRIBED:-}" == yes ]]; then
        describe_findings "$OUTPUT/ptb_xl"
    else
        say "describe: DESCRIBED=yes is not set, and reports need no descriptions: skipped"
    fi
}

step_train() {
    # the recipe names the published set with its options; the prepared folder was made with them
    local flags=(--dataset "$OUTPUT/ptb_xl" --dataset_options '{}')
    [[ -z "${WAVEFORMS:-}" ]] || flags+=(--text statements)
    [[ "${DESCRIBED:-}" != yes ]] || flags+=(--text statements --dataset_options "$(described_options)")
    train_model --config "${RECIPE:-$ROOT/recipes/ptb_xl.yaml}" "${flags[@]}"
}

step_evaluate() { evaluate_model "$OUTPUT/ptb_xl"; }

step_card() { check_card; }

step_push() { push_model; }

run_steps "$@"
