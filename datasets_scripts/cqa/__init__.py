"""Cardio Query Assistant: from machine statements to grounded descriptions of what they look like on the ECG.

`statements.py` reads a statement ("Sinus bradycardia with frequent PVCs") as findings with their modifiers; the names
come from `findings.csv`, which `findings.py` loads; `knowledge/` has one page for each of them. A few hundred pages
thus serve every statement, and each sentence of a description has a source. Nothing here needs a model or a GPU.
"""
