"""Speed and memory, measured: `python -m modeling_esi.benchmarks NAME`. Every measurement is a fresh process."""
