"""Public ECG sources become records, and records become data sets with the same columns.

    from datasets_scripts import Settings, load_ecg_dataset, prepare_dataset, read_record

`records.py` says what a record is, `sources.py` what a source is. Each public corpus is a module of its own here;
`readers/` reads files, `checks/` looks at signals, `preparation/` makes data sets, `loading.py` opens them.
"""

from datasets_scripts.load_report import LoadReport
from datasets_scripts.loading import label_names, label_prompts, load_ecg_dataset, load_ecg_dataset_with_report
from datasets_scripts.preparation.prepare import Settings, prepare_dataset
from datasets_scripts.preparation.record_reader import RecordReader
from datasets_scripts.records import ECGRecord, read_record

__all__ = [
    "ECGRecord",
    "LoadReport",
    "RecordReader",
    "Settings",
    "label_names",
    "label_prompts",
    "load_ecg_dataset",
    "load_ecg_dataset_with_report",
    "prepare_dataset",
    "read_record",
]
