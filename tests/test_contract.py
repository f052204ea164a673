"Every kind of network does what a network does here, or says plainly that it cannot."
import copy, pytest, torch, warnings
from dataclasses import asdict
from pretend_cuda import Gpu
from proc_nb.all import *
from proc_nb.models.wired import hardwire
from proc_nb.tasks.core import seeded
from proc_nb.language.model import language_model, own_document
from proc_nb.files import save_tensors
from proc_nb.lego.reader import reader

LEGO = tasks['lego'](n_vars=3, n_supervised=3)
NEEDLE = Haystack(n_pairs=3)
KINDS = dict(gpt={}, tied=dict(tied=True), dropout=dict(dropout=.2), both_ways=dict(causal=False), shared=dict(causal=False, shared=True), shared_causal=dict(shared=True),
    remat=dict(tied=True, remat=True, n_head=1), remat_dropout=dict(remat=True, dropout=.2), wired=dict(wired=[{}]), wired_both_ways=dict(causal=False, wired=[dict(learn=True)]),
    wired_shared=dict(causal=False, shared=True, wired=[dict(association=[0], local=[3], kernel=[1, 2, 1])]), wired_once=dict(wired=[dict(layers=[1])]))
# remat has a wide head: what is computed again on the way back does not know that the GPU is a pretended one, and narrow heads ask

def config(kind, task=LEGO): return GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, **KINDS[kind])
def make(kind, task=LEGO, seed=1): return GPT(config(kind, task), seed=seed)
def loud(model):
    "Larger weights, so that differences show"
    g = seeded(5)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if 'kernel' not in n: p.add_(torch.randn(p.shape, generator=g) * .2)
    return model
def rows(task=LEGO, n=6): return task.sample(n, seeded(0)).tokens

every = pytest.mark.parametrize('kind', KINDS)

@every
def test_logits_and_positions(kind):
    model, tokens = loud(make(kind)).eval(), rows()
    full = model(tokens)
    assert full.shape == (6, LEGO.seq_len, LEGO.vocab_size) and full.isfinite().all()
    spots = torch.tensor([0, 7, 3, 5, 2, 1])
    one = torch.zeros(tokens.shape, dtype=torch.bool)
    one[torch.arange(6), spots] = True
    some = torch.rand(tokens.shape, generator=seeded(1)) < .3
    for at in one, some, one & False: torch.testing.assert_close(model(tokens, at=at), full[at], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model(tokens, at=spots), full[one], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match='does not fit into block_size'): model(torch.zeros(1, LEGO.seq_len + 1, dtype=torch.int64))

@every
def test_who_sees_whom(kind):
    model, tokens = loud(make(kind)).eval(), rows()
    later = tokens.clone()
    later[:, 9] = (later[:, 9] + 1) % LEGO.vocab_size
    same = torch.isclose(model(tokens), model(later), atol=1e-5).all(-1).all(0)
    assert not same[9] and bool(same[:9].all()) == model.config.causal

@every
def test_documents_are_kept_apart_or_refused(kind):
    model, x = loud(make(kind)).eval(), rows() % 5
    x[:, 4] = 7
    y = x.clone()
    y[:, :4] = (y[:, :4] + 3) % 5
    if model.config.wired:
        with pytest.raises(ValueError, match='cannot be kept apart'): model(x, seen=own_document(x, 7))
        return
    a, b = (model(t, seen=own_document(t, 7)) for t in (x, y))
    torch.testing.assert_close(a[:, 5:], b[:, 5:], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(model(x)[:, 5:], model(y)[:, 5:], atol=1e-3)
    at = torch.tensor([8, 6, 9, 2, 4, 5])
    torch.testing.assert_close(model(x, at=at, seen=own_document(x, 7)), a[torch.arange(6), at], atol=1e-5, rtol=1e-4)

@every
def test_maps_are_what_attention_does(kind):
    model, tokens = loud(make(kind)).train(), rows()
    maps = model.attention(tokens)
    c = model.config
    assert maps.shape == (c.n_layer, 6, c.n_head, LEGO.seq_len, LEGO.seq_len) and model.training
    assert not c.causal or maps.triu(1).abs().max() == 0
    if not c.wired: torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    # the first block's attention, from its map and its values
    model.eval()
    attn, x = model.h[0].attn, model.h[0].ln_1(model.embed(tokens))
    mixed = (maps[0] @ attn.qkv(x)[2]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attn.c_proj(mixed), attn(x, **model._look(tokens)), atol=1e-5, rtol=1e-4)

@every
def test_writing_with_and_without_a_cache(kind):
    model, start = loud(make(kind)), rows()[:, :6]
    if not model.config.causal:
        for f in lambda: model.generate(start, 2), lambda: model.extend(start, [None] * 2):
            with pytest.raises(ValueError, match='both ways|looks back'): f()
        return
    plain, still = start, copy.deepcopy(model).eval()
    for _ in range(4): plain = torch.cat([plain, still(plain)[:, -1:].argmax(-1)], 1)
    for cache in True, False: assert torch.equal(model.generate(start, 4, cache=cache), plain)
    if model.config.wired:
        with pytest.raises(ValueError, match='Keys and values'): model.extend(start, [None] * 2)

@every
def test_saved_and_loaded(kind, tmp_path):
    model = loud(make(kind))
    save_model(model, tmp_path/'m.safetensors', task=LEGO, note='kept')
    back = load_model(tmp_path/'m.safetensors')
    assert type(back) is GPT and back.config == model.config and repr(back.task) == repr(LEGO) and back.meta['note'] == 'kept'
    assert torch.equal(back.eval()(rows()), model.eval()(rows())) and torch.equal(back.attention(rows()), model.attention(rows()))
    save_model(back, tmp_path/'again.safetensors', task=LEGO, note='kept')
    again = load_model(tmp_path/'again.safetensors')
    assert again.meta == back.meta and all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())

@every
def test_the_config_alone_makes_it(kind):
    model = make(kind)
    again = GPT(GPTConfig(**asdict(model.config)), seed=torch.Generator().manual_seed(1))
    assert again.config == model.config and all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())
    with torch.device('meta'): empty = make(kind)
    assert {k: v.shape for k, v in empty.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()} and empty.wte.weight.is_meta

def losses(model, device='cpu', steps=4, **kw): return [float(r.loss) for r in fit(model.to(device), LEGO, steps, 8, eval_every=steps, eval_rows=20, **kw)]

@every
def test_it_learns(kind):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    learnt = losses(make(kind), steps=40, lr=.01, warmup=5)
    assert learnt[-1] < learnt[0] - .3
    assert losses(make(kind)) == losses(make(kind)) and torch.equal(before, torch.random.get_rng_state())

@every
def test_on_a_pretended_gpu(kind):
    with warnings.catch_warnings(), Gpu() as gpu:
        warnings.filterwarnings('error', 'No CUDA graph')
        assert losses(make(kind), 'cuda') == pytest.approx(losses(make(kind)), abs=1e-5)
        assert gpu.captures == (0 if make(kind).config.dropout else 1)

@every
def test_side_by_side(kind):
    models, alone = ([make(kind, seed=s) for s in range(2)] for _ in range(2))
    why = 'blocks of its own' if models[0].config.wired else '' if models[0].causal else 'looks both ways'
    if why:
        with pytest.raises(ValueError, match=why): fit_many(models, LEGO)
        return
    list(fit_many(models, LEGO, 4, 8, warmup=0, eval_rows=20))
    for s, (a, b) in enumerate(zip(alone, models)):
        start = make(kind, seed=s).wte.weight
        list(fit(a, LEGO, 4, 8, seed=s, warmup=0, eval_rows=20))
        assert (a.wte.weight - start).abs().mean() > 1e-3
        for (k, p), q in zip(a.named_parameters(), b.parameters()):
            if not k.endswith('c_attn.bias'): assert (p - q).abs().mean() < 1e-5, k # a key's bias has no gradient but rounding

@every
def test_parts_are_carried(kind):
    source, target = loud(make(kind)), make(kind, seed=2)
    head = target.lm_head.weight.clone()
    assert transfer(source, target, 'all').shares() == dict(attn=1., mlp=1., ln=1., tok=0., pos=0.)
    assert torch.equal(target.h[-1].attn.c_attn.weight, source.h[-1].attn.c_attn.weight) and torch.equal(target.lm_head.weight, head)
    plain = GPT(GPTConfig(LEGO.vocab_size, LEGO.seq_len, n_head=source.config.n_head), seed=3)
    if source.config.wired:
        with pytest.raises(ValueError, match='same heads|target has no h.0.attn.kernel'): transfer(source, plain, 'attn')
    else: assert transfer(source, plain, {'attn': [0]}).shares()['attn'] == .5

@every
def test_there_and_back_through_transformers(kind):
    pytest.importorskip('transformers')
    model = loud(make(kind))
    c = model.config
    if not c.causal or c.shared or c.wired:
        with pytest.raises(ValueError, match='A GPT-2 cannot be'): to_hf(model)
        return
    hf = to_hf(model)
    with torch.no_grad(): torch.testing.assert_close(hf(rows()).logits, model.eval()(rows()), atol=1e-4, rtol=0)
    assert torch.equal(from_hf(hf).eval()(rows()), model(rows()))

# ---- the numbers of earlier versions: the first and the eighth loss, when each of these was a class of its own

OLD = dict(gpt=(lambda c: GPT(c(), seed=3), 3.497, 3.2613), tied=(lambda c: GPT(c(tied=True), seed=3), 3.5117, 3.2645), dropout=(lambda c: GPT(c(dropout=.2), seed=3), 3.5011, 3.2756),
    reader=(lambda c: reader(LEGO, seed=3), 3.8018, .8963), shared=(lambda c: reader(LEGO, shared=True, seed=3), 3.788, .8893),
    wired=(lambda c: hardwire(GPT(c(), seed=3)), 3.4969, 3.2626), wired_reader=(lambda c: hardwire(reader(LEGO, seed=3), learn=True), 3.9107, 1.0256),
    wired_shared=(lambda c: hardwire(reader(LEGO, shared=True, seed=3)), 3.671, .8126), wired_once=(lambda c: hardwire(GPT(c(), seed=3), layers=[1], kernel=(1, 2, 1)), 3.4967, 3.2613),
    language=(lambda c: language_model(c(tied=True), seed=3), 3.5226, 3.2447), own_head=(lambda c: language_model(c(dropout=.1), seed=3), 3.5255, 3.2658),
    twice=(lambda c: language_model(c(tied=True, dropout=.1, remat=True), seed=3), 3.523, 3.2532))

@pytest.mark.parametrize('name', OLD)
def test_a_seed_learns_what_it_always_learnt(name):
    make, first, eighth = OLD[name]
    model = make(lambda **kw: GPTConfig(LEGO.vocab_size, LEGO.seq_len, **kw))
    got = [float(r.loss) for r in fit(model, LEGO, 8, 16, seed=1, warmup=2, eval_every=8, eval_rows=40)]
    assert [got[0], got[7]] == pytest.approx([first, eighth], abs=3e-4)

def test_files_of_earlier_versions(tmp_path):
    model = hardwire(reader(LEGO, shared=True, seed=4, n_embd=16), association=(2,), local=(0, 1), learn=True)
    then = {k: v for k, v in asdict(model.config).items() if k not in ('causal', 'shared', 'remat', 'wired')}
    how = dict(association=[2], local=[0, 1], layers=[0], learn=True)
    save_tensors(tmp_path/'m.safetensors', model.state_dict(), config=then, kind='Reader', made=dict(shared=True), wired=[how], task=None)
    back = load_model(tmp_path/'m.safetensors')
    assert torch.equal(back(rows()), model(rows())) and not back.causal and back.config.shared
