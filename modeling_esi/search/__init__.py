"""Search: a data set embedded once, then its recordings found by a sentence or by another ECG."""
