"""The losses against numbers made by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from modeling_esi.losses import (
    caption_loss,
    caption_targets,
    contrastive_loss,
    entailed_pairs,
    mean_over_processes,
    positive_pairs,
    sigmoid_contrastive_loss,
    target_entropy,
)
from modeling_esi.training.extra_losses import multi_positive_loss

ECG = torch.eye(3)
TEXT = torch.tensor([[0.6, 0.8, 0.0], [0.0, 1.0, 0.0], [0.8, 0.0, 0.6]])
SCALE = torch.tensor([2.0])
#: 2 * TEXT @ ECG.T, rows are texts and columns ECGs.
SIMILARITIES = [[1.2, 1.6, 0.0], [0.0, 2.0, 0.0], [1.6, 0.0, 1.2]]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def cross_entropy(row: list[float], target: list[float]) -> float:
    log_sum = math.log(sum(math.exp(value) for value in row))
    return sum(share * (log_sum - value) for value, share in zip(row, target, strict=True))


def symmetric(targets: list[list[float]]) -> float:
    columns = [list(column) for column in zip(*SIMILARITIES, strict=True)]
    by_text = sum(cross_entropy(row, target) for row, target in zip(SIMILARITIES, targets, strict=True)) / 3
    by_ecg = sum(cross_entropy(row, target) for row, target in zip(columns, targets, strict=True)) / 3
    return (by_text + by_ecg) / 2


def test_contrastive_loss_of_three_pairs():
    expected = symmetric([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert expected == pytest.approx((1.0271 + 0.2395 + 1.0271 + 1.0271 + 0.5909 + 0.4715) / 6, abs=1e-4)  # by hand
    assert contrastive_loss(ECG, TEXT, SCALE).item() == pytest.approx(expected, rel=1e-6)
    assert contrastive_loss(ECG, TEXT, SCALE[0]).item() == pytest.approx(expected, rel=1e-6)


def test_contrastive_loss_shares_the_target_among_records_with_one_key():
    expected = symmetric([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    loss = contrastive_loss(ECG, TEXT, SCALE, text_key=torch.tensor([7, 7, -5]))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert expected != pytest.approx(symmetric([[1, 0, 0], [0, 1, 0], [0, 0, 1]]), rel=1e-2)


def test_keys_that_all_differ_change_nothing():
    plain = contrastive_loss(ECG, TEXT, SCALE)
    torch.testing.assert_close(contrastive_loss(ECG, TEXT, SCALE, text_key=torch.tensor([3, 1, 2])), plain)


# Text 0 says what ECGs 0 and 2 have, text 1 what ECG 1 has, text 2 nothing that is known.
TEXT_STATEMENTS = torch.tensor([[4, -1], [4, 6], [-1, -1]])
ECG_STATEMENTS = torch.tensor([[4, -1, -1], [5, 6, -1], [9, 4, 5]])


def test_a_text_is_true_of_every_ecg_that_has_all_it_says():
    assert entailed_pairs(TEXT_STATEMENTS, ECG_STATEMENTS).tolist() == [
        [True, False, True], [False, False, False], [False, False, False],
    ]  # fmt: skip
    assert entailed_pairs(torch.empty(2, 0, dtype=torch.long), ECG_STATEMENTS).tolist() == 2 * [3 * [False]]


def test_its_own_ecg_is_always_a_positive_of_a_text():
    """Also where the text says nothing known, or something that was not found in its own ECG."""
    of_ecgs, of_texts = positive_pairs(None, TEXT_STATEMENTS, ECG_STATEMENTS)
    assert of_texts.int().tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert torch.equal(of_ecgs, of_texts.T)
    assert positive_pairs(None, TEXT_STATEMENTS) == (None, None)


def test_contrastive_loss_shares_the_target_among_ecgs_that_have_what_a_text_says():
    columns = [list(column) for column in zip(*SIMILARITIES, strict=True)]
    by_text = [cross_entropy(*pair) for pair in zip(SIMILARITIES, [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 1]], strict=True)]
    by_ecg = [cross_entropy(*pair) for pair in zip(columns, [[1, 0, 0], [0, 1, 0], [0.5, 0, 0.5]], strict=True)]
    statements = {"text_statements": TEXT_STATEMENTS, "ecg_statements": ECG_STATEMENTS}
    loss = contrastive_loss(ECG, TEXT, SCALE, text_key=torch.tensor([1, 2, 3]), **statements)
    assert loss.item() == pytest.approx((sum(by_text) + sum(by_ecg)) / 6, rel=1e-6)
    positives = positive_pairs(**statements)[1]
    assert loss.item() == pytest.approx(multi_positive_loss(SCALE * TEXT @ ECG.T, positives).item(), rel=1e-6)


def test_records_with_one_key_stay_positives_whatever_their_texts_say():
    of_ecgs, of_texts = positive_pairs(torch.tensor([7, 8, 8]), TEXT_STATEMENTS, ECG_STATEMENTS)
    assert of_texts.int().tolist() == [[1, 0, 1], [0, 1, 1], [0, 1, 1]]
    assert of_ecgs.int().tolist() == [[1, 0, 0], [0, 1, 1], [1, 1, 1]]


def test_sigmoid_loss_counts_them_as_pairs():
    pairs = {(0, 0), (1, 1), (2, 2), (0, 2)}  # text, ECG
    expected = sum(yes_no(SIMILARITIES[t][e] - 1.5, (t, e) in pairs) for t in range(3) for e in range(3)) / 3
    statements = {"text_statements": TEXT_STATEMENTS, "ecg_statements": ECG_STATEMENTS}
    loss = sigmoid_contrastive_loss(ECG, TEXT, SCALE, torch.tensor([-1.5]), **statements)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_target_entropy_is_the_floor_of_the_loss():
    text_key = torch.tensor([1, 1, 2, 1])
    floor = target_entropy(text_key)
    assert floor.item() == pytest.approx(3 / 4 * math.log(3))
    perfect = F.one_hot(text_key, 4).float()  # equal where keys are equal, orthogonal elsewhere
    assert contrastive_loss(perfect, perfect, torch.tensor(100.0), text_key).item() == pytest.approx(floor.item())
    for _ in range(20):
        ecg, text = (F.normalize(torch.randn(4, 5), dim=-1) for _ in range(2))
        assert contrastive_loss(ecg, text, torch.tensor(14.0), text_key) >= floor
    assert target_entropy(torch.tensor([1, 2, 3])).item() == 0.0


def yes_no(value: float, is_pair: bool) -> float:
    """Cross-entropy of one yes-or-no question with this logit."""
    return math.log(1 + math.exp(-value if is_pair else value))


@pytest.mark.parametrize("keys", [None, [7, 7, -5]])
def test_sigmoid_loss_asks_of_each_ecg_and_text_whether_they_are_a_pair(keys):
    pairs = {(0, 0), (1, 1), (2, 2)} | ({(0, 1), (1, 0)} if keys else set())
    questions = [(SIMILARITIES[t][e] - 1.5, (t, e) in pairs) for t in range(3) for e in range(3)]
    expected = sum(yes_no(*question) for question in questions) / 3
    text_key = None if keys is None else torch.tensor(keys)
    loss = sigmoid_contrastive_loss(ECG, TEXT, SCALE, torch.tensor([-1.5]), text_key)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    transposed = sigmoid_contrastive_loss(TEXT, ECG, SCALE[0], torch.tensor(-1.5), text_key)
    assert transposed.item() == pytest.approx(expected, rel=1e-6)


def test_sigmoid_loss_at_its_start_is_about_the_missing_pairs():
    """At SigLIP's scale 10 and bias -10 orthogonal negatives cost e^-10 each, and an orthogonal pair costs 10."""
    ecg, text = torch.eye(8)[:4], torch.eye(8)[4:]
    loss = sigmoid_contrastive_loss(ecg, text, torch.tensor(10.0), torch.tensor(-10.0))
    assert loss.item() == pytest.approx(10 + 4 * math.log(1 + math.exp(-10)), rel=1e-6)
    assert sigmoid_contrastive_loss(ecg, ecg, torch.tensor(10.0), torch.tensor(-10.0)).item() < 1


def test_losses_are_float32_inside_whatever_comes_in():
    ecg, text = (F.normalize(torch.randn(5, 16), dim=-1).bfloat16() for _ in range(2))
    loss = contrastive_loss(ecg, text, torch.tensor(50.0).bfloat16())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, contrastive_loss(ecg.float(), text.float(), torch.tensor(50.0)), rtol=0, atol=0)
    logits, targets = 9 * torch.randn(2, 3, 7), torch.randint(1, 7, (2, 3))
    loss = caption_loss(logits.bfloat16(), targets, ignore_index=0)
    torch.testing.assert_close(loss, caption_loss(logits.bfloat16().float(), targets, ignore_index=0), rtol=0, atol=0)


@pytest.mark.parametrize("extra", [(), (torch.tensor(-10.0),)], ids=["softmax", "sigmoid"])
def test_mixed_precision_does_not_round_the_similarities(extra):
    contrast = sigmoid_contrastive_loss if extra else contrastive_loss
    ecg, text = (F.normalize(torch.randn(5, 16), dim=-1) for _ in range(2))
    plain = contrast(ecg, text, torch.tensor(50.0), *extra)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = contrast(ecg, text, torch.tensor(50.0), *extra)
    assert torch.equal(plain, mixed)


@pytest.mark.parametrize("key", [None, torch.tensor([1, 1, 2])])
def test_float64_stays_float64(key):
    embeds = ECG.double(), TEXT.double(), SCALE.double()
    assert contrastive_loss(*embeds, key).dtype == torch.float64
    assert sigmoid_contrastive_loss(*embeds, -SCALE.double(), key).dtype == torch.float64


def test_gathering_in_one_process_is_the_local_loss():
    assert torch.equal(contrastive_loss(ECG, TEXT, SCALE, gather=True), contrastive_loss(ECG, TEXT, SCALE))
    gathered = sigmoid_contrastive_loss(ECG, TEXT, SCALE, -SCALE, gather=True)
    assert torch.equal(gathered, sigmoid_contrastive_loss(ECG, TEXT, SCALE, -SCALE))
    assert mean_over_processes(torch.tensor(7)).item() == 7


LOGITS = [[[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]], [[2.0, -1.0, 0.0], [9.0, 9.0, 9.0]]]
TARGETS = [[1, 2], [2, 0]]  # the last one is padding


def one_hot(index: int) -> list[float]:
    return [float(i == index) for i in range(3)]


def test_caption_loss_is_the_mean_over_tokens_that_are_not_padding():
    total = sum(cross_entropy(LOGITS[b][t], one_hot(TARGETS[b][t])) for b, t in ((0, 0), (0, 1), (1, 0)))
    logits, targets = torch.tensor(LOGITS, requires_grad=True), torch.tensor(TARGETS)
    loss = caption_loss(logits, targets, ignore_index=0)
    assert loss.item() == pytest.approx(total / 3, rel=1e-6)
    loss.backward()
    assert torch.equal(logits.grad[1, 1], torch.zeros(3))
    assert (logits.grad[0].abs().sum(-1) > 0).all()
    by_given_count = caption_loss(logits, targets, ignore_index=0, num_targets=torch.tensor(4.5))
    assert by_given_count.item() == pytest.approx(total / 4.5, rel=1e-6)


def test_another_padding_id_ignores_another_token():
    loss = caption_loss(torch.tensor(LOGITS), torch.tensor(TARGETS), ignore_index=2)
    pairs = ((0, 0), (1, 1))
    expected = sum(cross_entropy(LOGITS[b][t], one_hot(TARGETS[b][t])) for b, t in pairs) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_batch_of_padding_costs_nothing():
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = caption_loss(logits, torch.zeros(2, 2, dtype=torch.long), ignore_index=0)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary():
    loss = caption_loss(torch.zeros(2, 3, 97), torch.randint(1, 97, (2, 3)), ignore_index=0)
    assert loss.item() == pytest.approx(math.log(97))


IDS = torch.tensor([[2, 11, 12, 3, 0, 0], [2, 21, 0, 22, 3, 0]])  # a real token may have the padding's id
MASK = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]])


@pytest.mark.parametrize(
    ("first", "pad", "masked", "expected"),
    [
        (1, 0, True, [[11, 12, 3, -9, -9], [21, 0, 22, 3, -9]]),
        (2, 0, True, [[12, 3, -9, -9], [0, 22, 3, -9]]),
        (1, 0, False, [[11, 12, 3, -9, -9], [21, -9, 22, 3, -9]]),
        (1, None, True, [[11, 12, 3, -9, -9], [21, 0, 22, 3, -9]]),
        (1, None, False, [[11, 12, 3, 0, 0], [21, 0, 22, 3, 0]]),
    ],
)
def test_caption_targets_leave_out_the_start_and_padding(first, pad, masked, expected):
    assert caption_targets(IDS, MASK if masked else None, first, pad, -9).tolist() == expected
