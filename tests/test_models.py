"Networks say what they cannot do: other heads, missing layers, heads shared by hand, writing from both sides."
import copy, math
import numpy as np, pytest, torch
from proc_nb.all import *
from proc_nb.influence.ekfac import gauss_newton
from proc_nb.influence.retrain import row_losses
from proc_nb.lego.heads import accuracy_by_place, count_or_follow, flip_effect, right_by_place
from proc_nb.models.wired import hardwire
from proc_nb.tasks.core import seeded
from proc_nb.train.ensemble import Ensemble
from proc_nb.train.loss import generate, right_rows
from proc_nb.viz.views import guesses, look
from proc_nb.influence.format import right_words
from proc_nb.language.model import language_model

TEST = Haystack(n_pairs=3)
LEGO = tasks['lego'](n_vars=3, n_supervised=3)
def cfg(task=TEST, **kw): return GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, **kw)
def copied(model): return {k: v.clone() for k, v in model.state_dict().items()}
def unchanged(model, before): return all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
def by_hand():
    model = GPT(cfg())
    model.lm_head.weight = model.wte.weight
    return model
def loud(model, seed=1):
    g = seeded(seed)
    for p in model.parameters(): p.data = p.data + torch.randn(p.shape, generator=g) * .2
    return model
def plainly(model, tokens, n): # one whole pass for each token
    for _ in range(n): tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], 1)
    return tokens
ROWS = torch.randint(TEST.vocab_size, (4, 3), generator=seeded(2))

# ---- transfer

@pytest.mark.parametrize('heads', [1, 2, 8])
@pytest.mark.parametrize('parts', ['attn', 'all', {'attn': [0]}])
def test_other_heads_are_refused(heads, parts):
    source, target = GPT(cfg(n_head=4), seed=1), GPT(cfg(n_head=heads), seed=2)
    before = copied(target)
    with pytest.raises(ValueError, match=f'4 heads in the source and {heads} heads in the target'): transfer(source, target, parts)
    with pytest.raises(ValueError, match='heads'): compose(target, {'mlp': GPT(cfg(), seed=3), 'attn': source})
    assert unchanged(target, before)
    transfer(source, target, ['mlp', 'ln', 'pos']) # what has no heads fits

def test_heads_wired_in_another_way_are_refused():
    a, b = hardwire(GPT(cfg(LEGO, causal=False), seed=1)), hardwire(GPT(cfg(LEGO, causal=False), seed=2), association=(0,), local=(1,))
    with pytest.raises(ValueError, match=r'local \[0\].*local \[1\]'): transfer(a, b, 'attn')
    transfer(a, hardwire(GPT(cfg(LEGO, causal=False), seed=2)), 'attn')

@pytest.mark.parametrize('parts', ['attn', ['ln', 'mlp'], 'all'])
def test_fewer_layers_are_refused_in_words_and_named_layers_fit(parts):
    source, target = GPT(cfg(n_layer=3), seed=1), GPT(cfg(), seed=2)
    before = copied(target)
    with pytest.raises(ValueError, match='only 2 layers.*Name the layers'): transfer(source, target, parts)
    assert unchanged(target, before)
    assert transfer(source, target, {'attn': [0, 1]}).shares()['attn'] == 1
    assert transfer(GPT(cfg(n_layer=1)), target, 'attn').shares()['attn'] == .5 # and the report says how much a shallower one gives

def test_what_is_refused_when_composing_changes_nothing():
    good, wide, deep = GPT(cfg(), seed=1), GPT(cfg(n_embd=32), seed=2), GPT(cfg(n_layer=3), seed=3)
    target = GPT(cfg(), seed=4)
    before = copied(target)
    for sources in {'attn': good, 'mlp': wide}, {'attn': good, 'mlp': deep}, {'attn': good, 'mpl': good}, {'attn': good, 'all': good}:
        with pytest.raises((ValueError, KeyError)): compose(target, sources)
        assert unchanged(target, before)

def test_tied_and_not():
    tied, free = GPT(cfg(tied=True), seed=1), GPT(cfg(), seed=2)
    before = copied(tied)
    with pytest.raises(ValueError, match='both tied, or neither'): transfer(free, tied, ['attn', 'tok'])
    assert unchanged(tied, before)
    for embed in 'mean', 'random': assert transfer(free, tied, 'all', embed).shares()['mlp'] == 1
    assert torch.allclose(tied.lm_head.weight, free.wte.weight.mean(0).expand_as(tied.wte.weight))
    report = transfer(tied, GPT(cfg(tied=True), seed=3), 'tok')
    assert report.shares()['tok'] == 1 and sum(report.moved.values()) == tied.wte.weight.numel()
    transfer(loud(tied), free, ['tok'])
    assert torch.equal(free.lm_head.weight, tied.wte.weight) and torch.equal(free.wte.weight, tied.wte.weight) and free.lm_head.weight is not free.wte.weight
    transfer(by_hand(), GPT(cfg(), seed=5), 'all', 'mean')
    one, other = GPT(cfg(tied=True), seed=6), GPT(cfg(), seed=7)
    one.task = other.task = TEST
    assert transfer(one, other, [], 'matched').shares()['tok'] == 1 and torch.equal(other.lm_head.weight, one.wte.weight)

# ---- a tied head, everywhere

def test_a_tied_head_trains_and_is_stored(tmp_path):
    def new(): return GPT(cfg(tied=True, dropout=.1), seed=1)
    once, twice = new(), new()
    list(fit(once, TEST, 6, 8, warmup=0, eval_rows=20))
    for n in 3, 6: list(fit(twice, TEST, n, 8, warmup=0, eval_rows=20, run_dir=tmp_path, resume=True))
    assert torch.equal(once.wte.weight, twice.wte.weight) and twice.lm_head.weight is twice.wte.weight
    assert not torch.equal(once.wte.weight, new().wte.weight) and sum(once.sizes().values()) == sum(GPT(cfg()).sizes().values()) - once.wte.weight.numel()
    save_model(once, tmp_path/'m.safetensors', task=TEST)
    again = load_model(tmp_path/'m.safetensors')
    assert again.config.tied and again.lm_head.weight is again.wte.weight and unchanged(again, copied(once))
    moved = copy.deepcopy(once)
    assert moved.lm_head.weight is moved.wte.weight and torch.equal(plainly(moved.eval(), ROWS, 3), once.generate(ROWS, 3))

def test_tied_members(tmp_path):
    models = [GPT(cfg(tied=True), seed=s) for s in range(2)]
    alone = [GPT(cfg(tied=True), seed=s) for s in range(2)]
    for n in 3, 6: list(fit_many(models, TEST, n, 8, warmup=0, eval_rows=20, run_dir=tmp_path, resume=True))
    for s, (a, b) in enumerate(zip(alone, models)):
        list(fit(a, TEST, 6, 8, seed=s, warmup=0, eval_rows=20))
        assert b.lm_head.weight is b.wte.weight
        torch.testing.assert_close(a.wte.weight, b.wte.weight, atol=1e-5, rtol=0)

def test_heads_shared_by_hand_are_told_at_once(tmp_path):
    for f in lambda: save_model(by_hand(), tmp_path/'m'), lambda: fit_many([by_hand()], TEST), lambda: Ensemble([by_hand(), by_hand()]):
        with pytest.raises(ValueError, match=r'GPTConfig\(tied=True\)'): f()
    odd = GPT(cfg(tied=True))
    odd.lm_head.weight = torch.nn.Parameter(odd.wte.weight.detach().clone())
    with pytest.raises(ValueError, match='shares nothing'): save_model(odd, tmp_path/'m')
    assert not (tmp_path/'m').exists()
    list(fit(by_hand(), TEST, 3, 8, eval_rows=20, run_dir=tmp_path)) # a run alone is stored, and goes on
    list(fit(by_hand(), TEST, 5, 8, eval_rows=20, run_dir=tmp_path, resume=True))

@pytest.mark.parametrize('tied', [False, True])
def test_tied_there_and_back(tied, tmp_path):
    pytest.importorskip('transformers')
    model = loud(GPT(cfg(tied=tied)))
    hf = to_hf(model)
    assert hf.config.tie_word_embeddings is tied
    with torch.no_grad(): torch.testing.assert_close(hf(ROWS).logits, model.eval()(ROWS), atol=1e-4, rtol=0)
    hf.save_pretrained(tmp_path)
    for again in from_hf(hf), from_hf(str(tmp_path)):
        assert again.config == model.config and (again.lm_head.weight is again.wte.weight) is tied and torch.equal(again.wte.weight, model.wte.weight)

# ---- writing

def test_a_network_that_looks_both_ways_does_not_write():
    for model in GPT(cfg(causal=False)), hardwire(GPT(cfg(causal=False))):
        with pytest.raises(ValueError, match='looks both ways'): model.generate(ROWS, 2)
        with pytest.raises(ValueError): model.extend(ROWS, [None] * 2)

class Turned(GPT):
    "Another forward pass: the cache of a GPT would not be its own"
    def forward(self, tokens, at=None): return -super().forward(tokens, at)

@pytest.mark.parametrize('make', [lambda: hardwire(GPT(cfg())), lambda: hardwire(GPT(cfg(dropout=.5)), layers=[1], kernel=(1, 2, 1)), lambda: Turned(cfg())])
def test_changed_networks_write_what_they_say(make):
    model = loud(make())
    assert torch.equal(model.generate(ROWS.repeat(1, 2), 2), plainly(copy.deepcopy(model).eval(), ROWS.repeat(1, 2), 2)) and model.training
    with pytest.raises(ValueError, match='Keys and values'): model.extend(ROWS, [None] * 2)

def test_members_write_as_if_alone():
    models = [loud(GPT(cfg(tied=t)), s) for t in (False, True) for s in (1, 2)]
    for pair in models[:2], models[2:]:
        want = torch.cat([m.generate(ROWS, 4) for m in pair])
        assert torch.equal(Ensemble(pair).generate(ROWS.repeat(2, 1), 4), want)
    with pytest.raises(ValueError, match='shared evenly'): Ensemble(models[:2]).generate(ROWS[:3], 1)
    with pytest.raises(ValueError, match='not fit into block_size'): Ensemble(models[:2])(torch.zeros(2, 99, dtype=torch.int64))

def test_wired_networks_do_not_stand_side_by_side():
    with pytest.raises(ValueError, match='blocks of its own'): fit_many([hardwire(GPT(cfg())), hardwire(GPT(cfg()))], TEST)

# ---- the contract

@pytest.mark.parametrize('make', [lambda: GPT(cfg()), lambda: GPT(cfg(causal=False)), lambda: Ensemble([GPT(cfg(), seed=s) for s in range(2)]), lambda: hardwire(GPT(cfg())),
    lambda: language_model(GPTConfig(TEST.vocab_size, TEST.seq_len, 2, 4, 16, tied=True)), lambda: language_model(GPTConfig(TEST.vocab_size, TEST.seq_len, 2, 4, 16, tied=True, remat=True))])
def test_positions_and_masks_say_the_same(make):
    model, tokens, at = loud(make()), TEST.sample(6, seeded(0)).tokens, torch.tensor([0, 7, 3, 5, 2, 1])
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[torch.arange(6), at] = True
    want = model(tokens)[mask]
    for got in model(tokens, at=mask), model(tokens, at=at): torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    some = TEST.sample(6, seeded(0)).tokens > 100
    torch.testing.assert_close(model(tokens, at=some), model(tokens)[some], atol=1e-5, rtol=1e-5)

# ---- settings

BAD = [dict(lr=-1e-3), dict(lr=0), dict(lr=math.nan), dict(clip=0), dict(clip=-1), dict(warmup=-5), dict(weight_decay=-1), dict(seed=-1), dict(seed=2**63), dict(seed=.5), dict(lr_scale=dict(tok=-1)), dict(batch_size=0),
    dict(schedule='cosine'), dict(schedule='cosine', decay_steps=0)]

@pytest.mark.parametrize('kw', BAD, ids=str)
def test_settings_that_make_no_sense_are_told_before_the_first_step(kw):
    with pytest.raises(ValueError): fit(GPT(cfg()), TEST, 2, **kw)
    many = {'seeds' if k == 'seed' else k: [v] if k == 'seed' else v for k, v in kw.items()}
    with pytest.raises(ValueError): fit_many([GPT(cfg())], TEST, 2, **many)

def test_large_seeds_and_numbers_of_numpy():
    big = 2**63 - 1
    for seed in 10**10, 10**15, big, np.int64(7), np.uint8(7): list(fit(GPT(cfg(dropout=.1), seed=seed), TEST, 2, 8, seed=seed, eval_rows=20))
    list(fit_many([GPT(cfg(dropout=.1), seed=s) for s in (1, big)], TEST, 2, 8, seeds=[np.int64(3), big], eval_rows=20))
    for k in 'vocab_size block_size n_layer n_head n_embd'.split(): assert type(getattr(GPTConfig(**{k: np.int64(8)}, **({} if k == 'n_embd' else dict(n_embd=16))), k)) is int
    model = GPT(GPTConfig(np.int64(TEST.vocab_size), np.int32(TEST.seq_len), dropout=np.float32(.1), tied=np.bool_(True)))
    assert type(model.config.dropout) is float and model.config.tied is True
    recs = list(fit(model, TEST, np.int64(2), np.int64(8), np.float32(1e-3), clip=np.float64(1), warmup=np.int8(1), eval_rows=np.int64(20), run_dir=None))
    assert len(recs) == 2 and math.isfinite(recs[-1].loss)

# ---- what measures a network leaves dropout out, and the network as it was

def dropping(task, causal=True): return GPT(cfg(task, n_layer=2, dropout=.5, causal=causal))
def rows_of(task, n=12): return task.sample(n, seeded(1))
SIDE = tasks['lego'](n_vars=3, n_supervised=3, n_distractors=1)
MEASURES = dict(evaluate=lambda m, t: evaluate(m, t, 60), score=lambda m, t: score(m, t, 'exact', 60), right_rows=lambda m, t: right_rows(m, rows_of(t)), written=lambda m, t: generate(m, rows_of(t)),
    probe=lambda m, t: probe(m, rows_of(t)), ablate=lambda m, t: ablate(m, t, 40), look=lambda m, t: look(m, rows_of(t)).markup, guesses=lambda m, t: guesses(m, rows_of(t).tokens[0], 2),
    row_losses=lambda m, t: row_losses(m, rows_of(t)), gradients=lambda m, t: GradDot(m).scores(rows_of(t, 3), rows_of(t)), curvature=lambda m, t: gauss_newton(m, m.h[0].attn.c_proj, rows_of(t, 2)),
    right_words=lambda m, t: right_words(m, rows_of(t)), writes=lambda m, t: m.generate(rows_of(t).tokens[:, :3], 4), heads=lambda m, t: head_scores(m, rows_of(t)).association)
LEGO_MEASURES = dict(places=lambda m, t: right_by_place(m, rows_of(t)), accuracy=lambda m, t: accuracy_by_place(m, t, 40), flips=lambda m, t: flip_effect(m, t, 40), ablation=lambda m, t: ablation(m, rows_of(t)),
    counts=lambda m, t: count_or_follow(m, t, 40))

def same(a, b):
    if isinstance(a, torch.Tensor): return torch.equal(a, b) or torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict): return all(same(v, b[k]) for k, v in a.items())
    return a == b

@pytest.mark.parametrize('name', [*MEASURES, *LEGO_MEASURES])
def test_measuring_is_without_dropout(name):
    task = TEST if name in MEASURES else SIDE
    model, measure = dropping(task, name in MEASURES), {**MEASURES, **LEGO_MEASURES}[name]
    for m in model.modules(): m.training = True
    model.ln_f.eval()
    before = [m.training for m in model.modules()]
    now = measure(model, task)
    assert [m.training for m in model.modules()] == before
    assert same(now, measure(copy.deepcopy(model).eval(), task))

def test_an_ensemble_is_measured_without_dropout():
    net = Ensemble([dropping(TEST), dropping(TEST)]).train()
    assert evaluate_many(net, TEST, 40) == evaluate_many(net, TEST, 40) and net.training
