"""Parts of training only: nothing here travels with the weights; `train_accelerate.py` puts them together."""
