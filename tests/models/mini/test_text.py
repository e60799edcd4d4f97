import pytest
import torch

from tests.models.mini.conftest import CAPTIONS
from workbench.models.mini import data, dit, text
from workbench.models.mini.vae import make_vae


@pytest.fixture
def parts():
    torch.manual_seed(0)
    tokenizer = text.make_tokenizer(CAPTIONS)
    model = dit.MiniModel(tokenizer, layers=1, heads=1).eval()
    return tokenizer, model, dit.make_pipeline(model, tokenizer, make_vae((8, 8, 8)))


def test_captions_are_plain_lower_case_words():
    assert data.caption("Smiling Face with Heart-Eyes") == "smiling face with heart eyes"
    assert data.caption("flag: St. Martin") == "flag st martin"
    assert data.caption("woman’s boot") == "woman's boot"


@pytest.mark.parametrize(
    ("stem", "kept"),
    [
        ("1f34e", True),  # red apple
        ("1f1e9-1f1ea", False),  # a national flag
        ("1f44d-1f3fd", False),  # a skin tone
        ("1f9d1-200d-1f4bb", False),  # technologist
        ("1f468-200d-2708-fe0f", False),  # man pilot, a near copy of ...
        ("1f9d1-200d-2708-fe0f", True),  # ... pilot
        ("1f4ce", False),  # paperclip
        ("1f3f4-200d-2620-fe0f", True),  # pirate flag
    ],
)
def test_choice_of_pictures(stem, kept):
    assert data.wanted(stem) is kept


def test_tokenizer_cleans_as_captions_do_and_pads(parts):
    tokenizer, _, _ = parts
    ids = text.token_ids(tokenizer, ["Smiling Face, with heart-eyes!", "smiling face with heart eyes", "zebra", ""])
    assert ids.shape == (4, text.CLIP_TOKENS)
    assert torch.equal(ids[0], ids[1])
    unk, bos, eos, pad = (text.SPECIAL.index(t) for t in (text.UNK, text.BOS, text.EOS, text.PAD))
    assert ids[2, :4].tolist() == [bos, unk, eos, pad]
    assert ids[3, :3].tolist() == [bos, eos, pad]


@pytest.mark.parametrize("t5_tokens", [8, 256])
def test_training_conditioning_is_the_pipelines(parts, t5_tokens):
    tokenizer, model, pipe = parts
    with torch.no_grad():
        prompt, negative, pooled, negative_pooled = pipe.encode_prompt(
            "red apple", None, None, do_classifier_free_guidance=True, max_sequence_length=t5_tokens
        )
        for caption, tokens, pool in (("red apple", prompt, pooled), ("", negative, negative_pooled)):
            ours, our_pool = model.conditioner(text.token_ids(tokenizer, [caption]), t5_tokens)
            torch.testing.assert_close(ours, tokens, rtol=0, atol=0)
            torch.testing.assert_close(our_pool, pool, rtol=0, atol=0)
    assert prompt[:, -t5_tokens:].abs().max() == 0


def test_counted_token_equals_repeated_tokens(parts):
    tokenizer, model, _ = parts
    transformer = model.transformer
    for weight in transformer.parameters():
        weight.data.add_(0.05 * torch.randn_like(weight))
    ids = text.token_ids(tokenizer, ["red apple", "pizza"])
    latents, time = torch.randn(2, 8, 16, 16), torch.tensor([500.0, 300.0])
    with torch.no_grad():
        tokens, pooled = model.conditioner(ids, 256)
        stock = transformer(latents, tokens, pooled, time).sample
        attention = dit.prepare_for_training(transformer)
        dit.set_counts(attention, torch.tensor([256, 256]), 64 + text.CLIP_TOKENS + 1)
        tokens, pooled = model.conditioner(ids, 1)
        counted = transformer(latents, tokens, pooled, time).sample
    torch.testing.assert_close(counted, stock, rtol=0, atol=2e-3)
