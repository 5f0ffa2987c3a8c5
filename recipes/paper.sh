#!/usr/bin/env bash
# The paper by one command: prepare -> describe -> train -> evaluate -> card -> push.
#
#   MIMIC_IV_ECG=physionet.org/files/mimic-iv-ecg/1.0 PTB_XL=physionet.org/files/ptb-xl/1.0.3 recipes/paper.sh
#   recipes/paper.sh --from train          this step and all after it
#   recipes/paper.sh --only evaluate       this step alone; STEPS="train evaluate" recipes/paper.sh: these two
#
# The same command goes on where it was stopped, and does nothing twice. Trains on MIMIC-IV-ECG (reports of at least
# four words) by recipes/paper.yaml; judges on PTB-XL, which training has not seen. What is not built yet is said.
#
#   MIMIC_IV_ECG   folder of MIMIC-IV-ECG 1.0, as published; needed by prepare
#   PATIENTS       MIMIC-IV's patients.csv (credentialed): age and sex in the texts
#   PTB_XL         folder of PTB-XL 1.0.3, as published; without it nothing is evaluated on PTB-XL
#   WAVEFORMS      JSON file: statement -> what it looks like in an ECG; without it the step describe makes one
#   DESCRIBE_FLAGS more flags of python -m datasets_scripts.cqa describe, such as a chat model to ask
#   OUTPUT         folder for all results (esi-paper); its folder done/ says what is done
#   RECIPE         recipe of the training (recipes/paper.yaml)
#   LAUNCH         what starts it (accelerate launch): "accelerate launch --config_file recipes/accelerate/4_gpus.yaml"
#   TRAIN_FLAGS    more flags of train_accelerate.py, parted by spaces
#   LIMIT          at most so many records of each split; NUM_WORKERS: processes that prepare
#   LICENSE        licence of the weights, for the card; HUB_MODEL_ID: name/repository for push, which is else skipped
set -euo pipefail

ALL_STEPS="prepare describe train evaluate card push"
OUTPUT="${OUTPUT:-esi-paper}"
# shellcheck source=recipes/steps.sh
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

step_prepare() {
    need MIMIC_IV_ECG "the folder of MIMIC-IV-ECG"
    local flags=(--data_dir "$MIMIC_IV_ECG" --text statements --min_words 4)
    [[ -z "${PATIENTS:-}" ]] || flags+=(--patients "$PATIENTS")
    [[ -z "${WAVEFORMS:-}" ]] || flags+=(--waveforms "$WAVEFORMS")
    prepare_dataset mimic_iv_ecg "${flags[@]}"
    if [[ -n "${PTB_XL:-}" ]]; then
        prepare_dataset ptb_xl --data_dir "$PTB_XL" --sampling_rate 500 --task all
    else
        say "prepare: PTB_XL is not set: nothing will be evaluated on PTB-XL"
    fi
}

step_describe() { describe_findings "$OUTPUT/mimic_iv_ecg"; }

step_train() {
    train_model --config "${RECIPE:-$ROOT/recipes/paper.yaml}" --dataset "$OUTPUT/mimic_iv_ecg" \
        --dataset_options "$(described_options)"
}

step_evaluate() {
    if [[ -d "$OUTPUT/ptb_xl" ]]; then evaluate_model "$OUTPUT/ptb_xl"; else say "evaluate: no PTB-XL: skipped"; fi
}

step_card() { check_card; }

step_push() { push_model; }

run_steps "$@"
