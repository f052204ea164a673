"Weights go to GPT-2 and back, and the logits agree."
import pytest, torch
from hypothesis import given, settings, strategies as st
from proc_nb.models.gpt import GPT, GPTConfig
from proc_nb.models.checkpoint import from_hf, to_hf
transformers = pytest.importorskip('transformers')

SIZES = [dict(), dict(vocab_size=31, block_size=9, n_layer=1, n_head=1, n_embd=8), dict(vocab_size=77, block_size=40, n_layer=3, n_head=2, n_embd=24)]

def loud(model): # weights large enough that a mistake would show
    g = torch.Generator().manual_seed(1)
    for p in model.parameters(): p.data = p.data + torch.randn(p.shape, generator=g) * .2
    return model.eval()

def rows(config): return torch.randint(config.vocab_size, (5, config.block_size), generator=torch.Generator().manual_seed(2))

@pytest.mark.parametrize('sizes', SIZES)
def test_there_and_back(sizes, tmp_path):
    model = loud(GPT(GPTConfig(**sizes)))
    x, hf = rows(model.config), to_hf(model)
    with torch.no_grad():
        want = model(x)
        assert want.std() > .3
        torch.testing.assert_close(hf(x).logits, want, atol=1e-4, rtol=0)
        hf.save_pretrained(tmp_path)
        again = from_hf(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))

@given(sizes=st.fixed_dictionaries(dict(vocab_size=st.integers(2, 120), block_size=st.integers(1, 48), n_layer=st.integers(1, 4))),
    n_head=st.sampled_from([1, 2, 3, 4, 6]), head_width=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_any_configuration_there_and_back(sizes, n_head, head_width):
    model = loud(GPT(GPTConfig(n_head=n_head, n_embd=n_head * head_width, **sizes)))
    x, hf = rows(model.config), to_hf(model)
    with torch.no_grad(): torch.testing.assert_close(hf(x).logits, model(x), atol=1e-4, rtol=0)
    again = from_hf(hf)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))

@pytest.mark.parametrize('tied', [True, False])
def test_from_a_fresh_gpt2(tied):
    hf = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=4,
        tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None)).eval()
    loud(hf)
    model = from_hf(hf).eval()
    x = rows(model.config)
    with torch.no_grad(): torch.testing.assert_close(model(x), hf(x).logits, atol=1e-4, rtol=0)

@pytest.mark.parametrize('change,word', [(dict(activation_function='relu'), 'relu'), (dict(n_inner=17), 'n_inner is 17'),
    (dict(scale_attn_by_inverse_layer_idx=True), 'scale_attn_by_inverse_layer_idx')])
def test_another_architecture_is_refused(change, word):
    hf = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2, **change))
    with pytest.raises(ValueError, match=word): from_hf(hf)

def test_the_usual_width_of_the_mlp_may_be_written_out():
    sizes = dict(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = from_hf(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, n_inner=32)))
    assert model.h[0].mlp.c_fc.out_features == 32

def test_pickled_weights_are_never_read(tmp_path):
    hf = to_hf(loud(GPT(GPTConfig(vocab_size=9, block_size=8, n_embd=8, n_layer=1, n_head=2))))
    hf.save_pretrained(tmp_path)
    torch.save(hf.state_dict(), tmp_path/'pytorch_model.bin')
    assert from_hf(tmp_path).config.vocab_size == 9 # with both, the safetensors
    (tmp_path/'model.safetensors').unlink()
    with pytest.raises(ValueError, match='GPT2LMHeadModel.from_pretrained.folder..save_pretrained'): from_hf(tmp_path)
    with pytest.raises(OSError): from_hf(tmp_path/'nowhere')

def test_writes_what_gpt2_writes():
    model = loud(GPT(GPTConfig(vocab_size=30, block_size=24)))
    start = rows(model.config)[:, :4]
    theirs = to_hf(model).generate(start, max_new_tokens=15, do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(start))
    assert torch.equal(model.generate(start, 15), theirs)

@given(sizes=st.fixed_dictionaries(dict(vocab_size=st.integers(2, 60), block_size=st.integers(3, 24), n_layer=st.integers(1, 3))),
    n_head=st.sampled_from([1, 2, 4]), begin=st.integers(1, 2), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_cache_changes_nothing(sizes, n_head, begin, seed):
    model = loud(GPT(GPTConfig(n_head=n_head, n_embd=8, **sizes), seed=seed))
    start, new = rows(model.config)[:, :begin], model.config.block_size - begin
    written = model.generate(start, new)
    for _ in range(new):
        with torch.no_grad(): start = torch.cat([start, model(start)[:, -1:].argmax(-1)], 1)
    assert torch.equal(written, start)
