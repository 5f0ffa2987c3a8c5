"""A tokenizer and a small BERT made from the training texts, for corpora and machines without a pretrained encoder."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, PreTrainedTokenizerFast

SPECIAL_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_text_length: int) -> PreTrainedTokenizerFast:
    """Train a lower-case WordPiece tokenizer that frames each text as `[CLS] text [SEP]`.

    Args:
        texts: The training split's texts; their order does not matter.
        vocab_size: Most tokens it may have, special ones included.
        max_text_length: Tokens after which a text is cut.
    """
    tokenizer = _tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    texts = sorted(texts)
    # The trainer would number the pieces inside words in the order of a hash table, another one in each process.
    pieces = [f"##{letter}" for letter in sorted({letter for text in texts for letter in _letters(tokenizer, text)})]
    first = [*SPECIAL_TOKENS.values(), *pieces]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    # Rebuilt from the vocabulary alone: only the four special tokens are special.
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokenizer = _tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    ids = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_text_length, **SPECIAL_TOKENS)


def _tokenizer(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _letters(tokenizer: Tokenizer, text: str) -> set[str]:
    words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    return {letter for word, _ in words for letter in word[1:]}


def small_bert_config(tokenizer: PreTrainedTokenizerFast, hidden_size: int, num_layers: int) -> BertConfig:
    """A BERT as wide as the model, with heads of 32, for texts of the tokenizer's length.

    Its weights start with standard deviation `hidden_size ** -0.5`: BERT's own 0.02 belongs to width 768, and leaves a
    narrow one nearly blind to its words for hundreds of steps (BENCHMARKS.md). No dropout: training lasts minutes.
    """
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=max(1, hidden_size // 32),
        intermediate_size=4 * hidden_size,
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=hidden_size**-0.5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
