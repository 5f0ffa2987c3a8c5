"""A running mean of the weights: what is judged and saved is calmer than the last step.

Exponential moving average as in Mean Teacher (https://arxiv.org/abs/1703.01780); the decay grows with the steps, so
that the random start is soon forgotten.
"""

import torch
from torch import Tensor, nn


class WeightAverage:
    """`average <- d * average + (1 - d) * weights`, with `d = min(decay, (1 + steps) / (10 + steps))`.

    Args:
        model: Whose weights are averaged; its buffers are copied as they are.
        decay: Largest share of the old average, from 0 to below 1.

    Raises:
        ValueError: For another decay.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(layer, decay=0.5)
    >>> average.update(layer)
    >>> sorted(average.state_dict())
    ['average.weight', 'num_updates']
    """

    def __init__(self, model: nn.Module, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"decay: expected 0 <= decay < 1, got {decay!r}.")
        self.decay = decay
        self.num_updates = 0
        self._average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after an optimizer step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value.to(self._average[name].dtype), 1 - decay)
            else:
                self._average[name].copy_(value)

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights, for `model.load_state_dict`; these are the average itself, not a copy."""
        return self._average

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs: tensors alone, so that it is stored without pickle."""
        return {"num_updates": torch.tensor(self.num_updates), **self._named()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict`. Raises ValueError where the names of weights differ."""
        average = self._named()
        if state.keys() != average.keys() | {"num_updates"}:
            raise ValueError("average: expected the weights of this model, got other names; resume the same model.")
        self.num_updates = int(state["num_updates"])
        for name, value in average.items():
            value.copy_(state[name])

    def _named(self) -> dict[str, Tensor]:
        return {f"average.{name}": value for name, value in self._average.items()}
