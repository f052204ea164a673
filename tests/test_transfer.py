"Transfer moves what it names and nothing else, for any parts, layers and shapes."
import pytest, torch
from hypothesis import given, strategies as st
from proc_nb.all import *
from proc_nb.models.gpt import layer_of, part_of

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

def test_the_report_counts_what_moved():
    source, target = models(sizes=((60, 20), (60, 30)))
    report = transfer(source, target, ['attn', 'pos'])
    assert report.shares() == dict(attn=1., mlp=0., ln=0., tok=0., pos=20 / 30)
    assert sum(report.sizes.values()) == sum(p.numel() for p in target.parameters())
    assert sum(report.moved.values()) == 20 * 16 + sum(p.numel() for n, p in target.named_parameters() if part_of(n) == 'attn')
    half = transfer(*models(layers=4), {'mlp': [1, 3]})
    assert half.shares()['mlp'] == .5 and sum(half.shares().values()) == .5 and '0 of' not in repr(half)

def test_embeddings_by_the_mean():
    source, target = models(sizes=((60, 20), (40, 30)))
    before = copied(target)
    transfer(source, target, 'all', 'mean')
    after, mean = target.state_dict(), source.wte.weight.mean(0)
    for k in 'wte.weight', 'lm_head.weight': assert torch.allclose(after[k], mean.expand(40, -1))
    assert torch.equal(after['wpe.weight'], before['wpe.weight']) # the practised table is too short, so it stays behind
    long = GPT(GPTConfig(vocab_size=60, block_size=40), seed=3)
    transfer(long, target, [], 'mean')
    assert torch.equal(target.wpe.weight, long.wpe.weight[:30])
    source, target = models(sizes=((60, 20), (60, 30)))
    transfer(source, target, ['tok', 'pos'], 'mean') # what is named is carried over as it is
    assert torch.equal(target.wte.weight, source.wte.weight) and torch.equal(target.wpe.weight[:20], source.wpe.weight)

def test_embeddings_by_name():
    source, target = models(sizes=((4, 20), (3, 20)))
    class Named:
        def __init__(self, names): self.token_names = names
    source.task, target.task = Named(['a', 'b', 'c', 'd']), Named(['x', 'd', 'b'])
    before = copied(target)
    transfer(source, target, [], 'matched')
    for k in 'wte.weight', 'lm_head.weight':
        now = target.state_dict()[k]
        assert torch.equal(now[0], before[k][0]) and torch.equal(now[1], source.state_dict()[k][3]) and torch.equal(now[2], source.state_dict()[k][1])
    assert torch.equal(target.wpe.weight, before['wpe.weight'])
    target.task = Named(['x', 'y', 'z'])
    with pytest.raises(ValueError, match='no token with the same name'): transfer(source, target, [], 'matched')
    source.task = None
    with pytest.raises(ValueError, match='needs to know'): transfer(source, target, [], 'matched')

def test_put_together():
    (a, b), target = models(sizes=((60, 20), (60, 20))), GPT(GPTConfig(vocab_size=60, block_size=20), seed=9)
    before = copied(target)
    compose(target, {'attn': a, ('mlp', 'ln'): b})
    for k, v in target.state_dict().items(): assert torch.equal(v, dict(attn=a, mlp=b, ln=b).get(part_of(k), target).state_dict()[k] if part_of(k) in ('attn', 'mlp', 'ln') else before[k])
    with pytest.raises(ValueError, match='same part: attn'): compose(target, {'attn': a, ('attn', 'mlp'): b})

def test_perturbed(g):
    a, b = models(sizes=((60, 20), (60, 20)))
    before = copied(a)
    perturb(a, 'shuffle', g, ['mlp'])
    for k, v in a.state_dict().items():
        assert torch.equal(v.flatten().sort().values, before[k].flatten().sort().values)
        assert torch.equal(v, before[k]) != (part_of(k) == 'mlp' and k.endswith('weight'))
    before = copied(b)
    perturb(b, 'noise', g, 'attn', 2.)
    for k, v in b.state_dict().items():
        if part_of(k) != 'attn': assert torch.equal(v, before[k])
        elif k.endswith('weight'): assert abs(float((v - before[k]).std() / before[k].std(correction=0)) - 2) < .3
    with pytest.raises(KeyError): perturb(a, 'blur', g)

@pytest.mark.parametrize('kind', [{}, dict(causal=False), dict(shared=True), dict(wired=(dict(association=(1,), local=(0,)),))])
def test_a_start_is_the_kind_of_network_that_practised(kind):
    rule, test = tasks['identity'](length=4, n_symbols=9), tasks['haystack'](n_pairs=3)
    source = GPT(GPTConfig(rule.vocab_size, rule.seq_len, dropout=.1, **kind), seed=3)
    model = start(source, test, 'attn', seed=1)
    assert (model.config.causal, model.config.shared, model.config.wired) == (source.config.causal, source.config.shared, source.config.wired)
    assert (model.config.dropout, model.config.tied) == (0, False)
    carried = [n for n, _ in model.named_parameters() if '.attn.' in n]
    assert carried and all(torch.equal(dict(model.named_parameters())[n], dict(source.named_parameters())[n]) for n in carried)
    if kind == dict(causal=False):
        with pytest.warns(UserWarning, match='looks both ways, and rows of haystack hold their answers'): list(fit(model, test, 1, 4, eval_rows=20))
