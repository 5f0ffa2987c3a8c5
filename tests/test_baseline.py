"""The plain implementation that speed is measured against computes the same model, with the same weights."""

import pytest
import torch
from tiny_esi import tiny_batch, tiny_esi

from modeling_esi.benchmarks.baseline import Baseline


@pytest.mark.parametrize("norm_type", ["time", "channel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_gradients_are_those_of_the_model(norm_type, dtype):
    from tiny_esi import CONVNEXT

    model = tiny_esi("released", ecg=CONVNEXT | {"norm_type": norm_type}).to(dtype)
    baseline = Baseline(model.config).to(dtype).eval()
    baseline.load_state_dict(model.state_dict())
    batch = tiny_batch()
    batch["input_values"] = batch["input_values"].to(dtype)
    output, (loss, contrastive, caption) = model(**batch, return_loss=True), baseline(**batch)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-6, "atol": 1e-6}
    for name, value in (("loss", loss), ("contrastive_loss", contrastive), ("caption_loss", caption)):
        torch.testing.assert_close(output[name].to(dtype), value, **tolerance)
    output.loss.backward()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in baseline.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: n + m)
