"""Export: the ECG tower with its door inside, as one file that takes millivolts."""
