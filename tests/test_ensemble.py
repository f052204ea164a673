"Members of an ensemble are what they would be alone."
import pytest, torch
from hypothesis import given, settings, strategies as st
from proc_nb.all import *
from proc_nb.models.gpt import part_of

def gpts(task, n, **kwargs): return [GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, **kwargs), seed=s) for s in range(n)]

def gap(a, b): # key biases have no true gradient: rounding alone moves them, and they change no output
    return max(float((p - q).detach().abs().max()) for (k, p), q in zip(a.named_parameters(), b.parameters()) if not k.endswith('c_attn.bias'))

TASKS = dict(haystack=dict(n_pairs=5), identity=dict(length=5, n_symbols=9), dyck=dict(k=3, seq_len=12))

@pytest.mark.parametrize('name', TASKS)
@pytest.mark.parametrize('n_embd,n_head,n_layer', [(16, 4, 2), (32, 2, 1)])
def test_as_if_alone(name, n_embd, n_head, n_layer):
    task = tasks[name](**TASKS[name])
    alone, many = (gpts(task, 3, n_embd=n_embd, n_head=n_head, n_layer=n_layer) for _ in range(2))
    lrs, clips, scales, frozen = [1e-3, 3e-3, 1e-3], [1., .5, 1.], [None, dict(tok=5), None], [[], [], ['attn', 'pos']]
    recs = [list(fit(m, task, 30, 16, lr=l, clip=c, lr_scale=s, freeze=f, seed=i, eval_every=30, eval_rows=100))
        for i, (m, l, c, s, f) in enumerate(zip(alone, lrs, clips, scales, frozen))]
    start = {k: v.clone() for k, v in many[2].state_dict().items()}
    both = list(fit_many(many, task, 30, 16, lr=lrs, clip=clips, lr_scale=scales, freeze=frozen, eval_every=30, eval_rows=100))
    for i, (a, b) in enumerate(zip(alone, many)):
        assert gap(a, b) < 1e-5
        for one, rec in zip(recs[i], both):
            assert abs(one.loss - rec[i].loss) < 1e-4 and one.step == rec[i].step and abs(one.lr - rec[i].lr) < 1e-9
        assert abs(recs[i][-1].accuracy - both[-1].accuracy[i]) < .011
    for k, v in many[2].state_dict().items(): assert torch.equal(v, start[k]) == (part_of(k) in ('attn', 'pos'))

def test_sizes_types_and_lists_are_checked():
    task = tasks['haystack'](n_pairs=4)
    models = gpts(task, 2)
    for bad, word in (([], 'at least one'), ([models[0], models[0]], 'given twice'), ([*models, *gpts(task, 1, n_embd=32)], 'Member 2'),
        ([models[0], torch.nn.Linear(2, 2)], 'made of GPTs')):
        with pytest.raises(ValueError, match=word): fit_many(bad, task)
    for kw, word in ((dict(lr=[1, 2, 3]), 'lr is one value'), (dict(seeds=[1]), 'seeds'), (dict(freeze=[['mlp']]), 'freeze'), (dict(batch_size=0), 'batch_size'), (dict(steps=0), 'steps')):
        with pytest.raises(ValueError, match=word): fit_many(gpts(task, 2), task, **kw)
    with pytest.raises(KeyError, match='attn'): fit_many(gpts(task, 2), task, lr_scale=dict(atn=2))
    with pytest.raises(ValueError, match='block_size'): fit_many(gpts(task, 2), tasks['haystack'](n_pairs=9))

@given(st.integers(0, 2))
@settings(max_examples=3, deadline=None)
def test_one_diverges_alone(which):
    task = tasks['haystack'](n_pairs=4)
    alone, many = gpts(task, 3), gpts(task, 3)
    lrs, clips = [1e-3] * 3, [1.] * 3
    lrs[which], clips[which] = 1e30, 1e9
    with pytest.warns(UserWarning, match=f'Member {which} .* diverged'):
        recs = list(fit_many(many, task, 12, 8, lr=lrs, clip=clips, warmup=0, eval_rows=50))
    assert recs[-1].loss[which] is None and recs[-1].accuracy[which] is None
    assert all(p.isfinite().all() for p in many[which].parameters())
    for i in set(range(3)) - {which}:
        list(fit(alone[i], task, 12, 8, seed=i, warmup=0, eval_rows=50))
        assert gap(alone[i], many[i]) < 1e-4 and recs[-1].loss[i] is not None

def test_layers_of_ones_own_are_not_passed_over():
    class Mild(torch.nn.Linear):
        "Half of what a layer gives"
        def forward(self, x): return super().forward(x) / 2
    task = tasks['haystack'](n_pairs=4)
    def half(m): m.h[0].mlp.c_fc = Mild(16, 64)
    def other_norm(m): m.h[1].ln_2.eps = 1.
    def own_forward(m): m.h[1].mlp.forward = lambda x: x
    for change in half, other_norm, own_forward:
        models = gpts(task, 2)
        change(models[1])
        with pytest.raises(ValueError, match='Member 1 has layers or blocks of its own'): fit_many(models, task)

def test_none_left_is_an_error():
    task = tasks['haystack'](n_pairs=4)
    with pytest.raises(FloatingPointError, match='No member is left'): list(fit_many(gpts(task, 2), task, 50, 8, lr=1e30, clip=1e9, warmup=0))

def test_models_are_windows():
    task = tasks['haystack'](n_pairs=4)
    models = gpts(task, 2)
    before = models[1].wte.weight.clone()
    for rec in fit_many(models, task, 2, 8, warmup=0, eval_rows=50): assert not torch.equal(models[1].wte.weight, before)
    assert abs(rec.accuracy[1] - evaluate(models[1], task, 50)) < .021
