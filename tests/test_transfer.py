"Transfer moves what it names and nothing else, for any parts, layers and shapes."
import pytest, torch
from hypothesis import given, strategies as st
from proc_nb.all import *

PART_NAMES = 'attn mlp ln tok pos'.split()

def models(layers=2, sizes=((60, 20), (60, 30))):
    return [GPT(GPTConfig(vocab_size=v, block_size=b, n_layer=layers), seed=i) for i, (v, b) in enumerate(sizes)]

def copied(model): return {k: v.clone() for k, v in model.state_dict().items()}

@given(st.lists(st.sampled_from(PART_NAMES), unique=True))
def test_parts_that_are_not_named_stay(parts):
    source, target = models()
    before, rng = copied(target), torch.random.get_rng_state()
    transfer(source, target, parts)
    after, src = target.state_dict(), source.state_dict()
    for k in after:
        if part_of(k) not in parts: assert torch.equal(after[k], before[k])
        elif k == 'wpe.weight': assert torch.equal(after[k][:20], src[k]) and torch.equal(after[k][20:], before[k][20:])
        else: assert torch.equal(after[k], src[k])
    assert torch.equal(rng, torch.random.get_rng_state())

@given(part=st.sampled_from(['attn', 'mlp']), layers=st.lists(st.integers(0, 3), unique=True))
def test_layers(part, layers):
    source, target = models(layers=3)
    before = copied(target)
    if any(l > 2 for l in layers):
        with pytest.raises(ValueError, match='no layer 3'): transfer(source, target, {part: layers})
        assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())
        return
    transfer(source, target, {part: layers})
    for k, v in target.state_dict().items():
        moved = part_of(k) == part and layer_of(k) in layers
        assert torch.equal(v, source.state_dict()[k] if moved else before[k])

@given(st.text(max_size=8))
def test_any_other_word_is_refused(word):
    source, target = models()
    if word in (*PART_NAMES, 'all'): return
    with pytest.raises(KeyError): transfer(source, target, word)

def test_parts_that_do_not_match_leave_the_target_alone():
    source, target = models(sizes=((60, 20), (61, 20)))
    before = copied(target)
    with pytest.raises(ValueError, match='wte.weight is'): transfer(source, target, ['attn', 'tok'])
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())
