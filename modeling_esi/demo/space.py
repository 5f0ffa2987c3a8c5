"""A folder that a Gradio Space of the Hub runs: `app.py`, `requirements.txt`, and a README with a Space's settings."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

_README = """---
title: {title}
emoji: 🫀
colorFrom: red
colorTo: gray
sdk: gradio
sdk_version: {gradio}
app_file: app.py
pinned: false
models:
- {model}
---

An ECG-text model to try: upload a recording or choose a synthetic one, see its page, scores of your own labels, a
report, recordings like it, and what raised a score.

**Not a medical device.** Do not upload patients' data to a server that you do not run yourself.
"""
_APP = '''"""Runs the demo of {model}."""

from modeling_esi.demo.answers import ECGAnswers
from modeling_esi.demo.app import build_app, launch_app

launch_app(build_app(ECGAnswers.load({model}, template={template})))
'''
_REQUIREMENTS = "esi-ecg[demo,formats]\n"


def write_space(folder: str | os.PathLike[str], model: str, template: str = "{}.") -> Path:
    """Write the folder, and return it; `hf upload --repo-type space NAME FOLDER` puts it on the Hub.

    Args:
        folder: new, or empty.
        model: name on the Hub, such as `someone/esi-ecg`: a Space does not see folders of this machine.
        template: the sentence of a label.

    Raises:
        ValueError: for a model that is no name on the Hub, or a folder that is not empty.
    """
    folder = Path(folder)
    if model.count("/") != 1 or Path(model).exists():
        raise ValueError(f"model: expected a name on the Hub, such as someone/esi-ecg, got {model!r}: push it first.")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: expected a new or empty folder, got one with files in it: choose another.")
    folder.mkdir(parents=True, exist_ok=True)
    title = f"ECGs and text: {model}"
    readme = _README.format(title=json.dumps(title), gradio=version("gradio"), model=model)
    app = _APP.format(model=json.dumps(model), template=json.dumps(template))
    for name, text in {"README.md": readme, "app.py": app, "requirements.txt": _REQUIREMENTS}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder
