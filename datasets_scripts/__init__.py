"""Public ECG sources become records, and records become data sets with the same columns.

Records, their stored rows and the file readers are in `records.py`; every public source is a module of its own;
`loading.py` gives a source as a `datasets.Dataset`.
"""

from datasets_scripts.load_report import LoadReport
from datasets_scripts.loading import label_names, label_prompts, load_ecg_dataset, load_ecg_dataset_with_report
from datasets_scripts.records import ECGRecord, read_record

__all__ = [
    "ECGRecord",
    "LoadReport",
    "label_names",
    "label_prompts",
    "load_ecg_dataset",
    "load_ecg_dataset_with_report",
    "read_record",
]
