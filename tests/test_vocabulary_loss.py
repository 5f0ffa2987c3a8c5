"""The vocabulary's loss in chunks is the cross-entropy over all logits at once."""

import math

import pytest
import torch
from torch.nn import functional as F

from modeling_esi.vocabulary_loss import vocabulary_loss

IGNORED, TOKENS, WIDTH, VOCAB = -100, 13, 6, 37


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def case(dtype=torch.float64, num_tokens=TOKENS):
    states = torch.randn(num_tokens, WIDTH, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCAB, WIDTH, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, VOCAB, (num_tokens,))
    targets[1::4] = IGNORED
    return states, weight, targets


def plain(states, weight, targets):
    return F.cross_entropy((states @ weight.T).float(), targets, ignore_index=IGNORED, reduction="sum")


def exact(states, weight, targets):
    return F.cross_entropy(states @ weight.T, targets, ignore_index=IGNORED, reduction="sum")


def with_gradients(loss, of):
    return [loss.detach(), *torch.autograd.grad(3.5 * loss, of)]  # a factor behind it, as the mean over tokens is


@pytest.mark.parametrize("tokens_at_once", [1, 4, 5, 13, 99])
def test_it_is_the_cross_entropy(tokens_at_once):
    states, weight, targets = case()
    chunks = vocabulary_loss(states, weight, targets, IGNORED, chunk_logits=tokens_at_once * VOCAB)
    pairs = zip(
        with_gradients(chunks, (states, weight)),
        with_gradients(exact(states, weight, targets), (states, weight)),
        strict=True,
    )
    for first, second in pairs:
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


def test_float32_differs_by_rounding_alone():
    states, weight, targets = case(torch.float32)
    found = with_gradients(vocabulary_loss(states, weight, targets, IGNORED, 4 * VOCAB), (states, weight))
    for first, second in zip(found, with_gradients(plain(states, weight, targets), (states, weight)), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_by_hand():
    """Two words, states (0) and (ln 3): halves, then three quarters against one quarter."""
    states = torch.tensor([[0.0], [math.log(3)]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0]], requires_grad=True)
    loss = vocabulary_loss(states, weight, torch.tensor([0, 1]), IGNORED)
    torch.testing.assert_close(loss, torch.tensor(math.log(2) + math.log(4)))
    loss.backward()
    torch.testing.assert_close(states.grad, torch.tensor([[-0.5], [0.75]]))


def test_large_logits_do_not_overflow():
    states, weight = torch.tensor([[300.0]]), torch.tensor([[1.0], [-1.0], [0.9]])
    loss = vocabulary_loss(states, weight, torch.tensor([2]), IGNORED)
    torch.testing.assert_close(loss, torch.tensor(30.0), rtol=1e-5, atol=1e-5)


def test_nothing_to_predict_costs_nothing():
    states, weight, targets = case()
    for count in (TOKENS, 0):
        nothing = torch.full_like(targets, IGNORED)[:count]
        found = with_gradients(vocabulary_loss(states[:count], weight, nothing, IGNORED), (states, weight))
        assert all(torch.equal(tensor, torch.zeros_like(tensor)) for tensor in found)


@pytest.mark.parametrize("frozen", ["states", "weight"])
def test_what_needs_no_gradient_gets_none(frozen):
    states, weight, targets = case()
    (states if frozen == "states" else weight).requires_grad_(False)
    wanted = weight if frozen == "states" else states
    found = torch.autograd.grad(vocabulary_loss(states, weight, targets, IGNORED, 2 * VOCAB), wanted)[0]
    torch.testing.assert_close(found, torch.autograd.grad(exact(states, weight, targets), wanted)[0])


def test_bf16_autocast_is_as_near_to_float32_as_all_logits_are():
    states, weight, targets = case(torch.float32)
    true = with_gradients(plain(states, weight, targets), (states, weight))
    found = []
    for function in (lambda *case: vocabulary_loss(*case, IGNORED, 4 * VOCAB), plain):
        with torch.autocast("cpu", torch.bfloat16):
            loss = function(states, weight, targets)
        assert loss.dtype == torch.float32
        found.append(with_gradients(loss, (states, weight)))
    for mine, theirs, exactly in zip(*found, true, strict=True):
        assert torch.dist(mine, exactly) <= 2 * torch.dist(theirs, exactly) + 0.004 * exactly.norm()


def test_no_more_logits_than_told_are_in_memory():
    """What the forward pass allocates stays far below all logits."""
    states, weight, targets = case(torch.float32, num_tokens=1000)
    with torch.profiler.profile(profile_memory=True) as profile:
        vocabulary_loss(states, weight, targets, IGNORED, chunk_logits=10 * VOCAB)
    sizes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert 0 < max(sizes) <= 4 * 1000 * WIDTH < 4 * 1000 * VOCAB / 6


def test_meta_tensors_have_shapes():
    states, weight, targets = (tensor.detach().to("meta") for tensor in case(torch.float32))
    assert vocabulary_loss(states.requires_grad_(), weight, targets, IGNORED).shape == ()


@pytest.mark.slow
def test_compiled_it_gives_the_same():
    states, weight, targets = case(torch.float32)
    compiled = torch.compile(vocabulary_loss)
    found = [with_gradients(f(states, weight, targets, IGNORED, 4 * VOCAB), (states, weight))
             for f in (compiled, vocabulary_loss)]  # fmt: skip
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)
