"The fused step gives autograd's numbers, and leaves to autograd what it cannot take."
import functools, os, subprocess, sys
from copy import deepcopy
from concurrent.futures import ThreadPoolExecutor

import pytest, torch, torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from proc_nb.all import *
from proc_nb.models.gpt import MLP
from proc_nb.models.wired import hardwire
from proc_nb.train import ensemble, loss as train

pytest.importorskip('numba')
from proc_nb.train import fused
from proc_nb.train.fused import fused_step, whole_and_plain

def gen(seed=0): return torch.Generator().manual_seed(seed)

def sharp(cfg, seed=0): # weights large enough that attention chooses and gradients are no noise
    model = GPT(cfg, seed=seed)
    with torch.no_grad():
        for p in model.parameters(): p.add_(torch.randn(p.shape, generator=gen(seed)) * .3)
    return model

def plain(model, batch, at):
    "Loss, right answers and gradients by autograd, in double precision"
    model = deepcopy(model).double()
    logits = model(batch.tokens, at=at)
    loss = F.cross_entropy(logits, batch.targets[at])
    return loss.detach(), logits.argmax(-1) == batch.targets[at], torch.autograd.grad(loss, list(model.parameters()))

def same(model, batch, at):
    model.zero_grad(set_to_none=True)
    loss, right = fused_step(model, batch, at, learn=True)
    want, hits, grads = plain(model, batch, at)
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=1e-6)
    assert right == int(hits.sum()) == fused_step(model, batch, at)[1]
    for (name, p), g in zip(model.named_parameters(), grads):
        gap, size = float((p.grad - g).abs().max()), float(torch.cat([o.flatten() for o in grads]).abs().max())
        assert gap <= 1e-5 * size, (name, gap, size)

@given(layers=st.integers(1, 3), heads=st.sampled_from([1, 2, 3, 4]), width=st.sampled_from([4, 5, 6, 8, 16]), places=st.integers(1, 40),
    vocab=st.sampled_from([2, 7, 30, 100]), rows=st.integers(1, 30), share=st.sampled_from([.05, .4, 1]), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_any_shape_and_mask(layers, heads, width, places, vocab, rows, share, seed):
    model, g = sharp(GPTConfig(vocab, places + 2, layers, heads, heads * width), seed), gen(seed)
    tokens, targets = torch.randint(vocab, (2, rows, places), generator=g)
    at = torch.rand(rows, places, generator=g) < share
    at[torch.randint(rows, (), generator=g), torch.randint(places, (), generator=g)] = True
    same(model, Batch(tokens, targets, at, at), at)

@pytest.mark.parametrize('heads,width', [(4, 16), (2, 10)])
def test_exponentials_made_again_for_long_rows(monkeypatch, heads, width):
    monkeypatch.setattr(fused, 'KEEP', 0)
    fused._plan.cache_clear()
    model, tokens = sharp(GPTConfig(30, 21, 3, heads, width)), torch.randint(30, (11, 21), generator=gen())
    for share in (.1, 1):
        at = torch.rand(11, 21, generator=gen()) < share
        same(model, Batch(tokens, tokens, at, at), at)
    fused._plan.cache_clear()

@pytest.mark.parametrize('name', [*tasks.rules, *tasks.tests])
def test_every_task(name):
    task = tasks[name]()
    batch = task.sample(20, gen())
    same(sharp(GPTConfig(task.vocab_size, task.seq_len)), batch, batch.loss_mask)

def test_a_tied_head_and_parts_that_want_no_gradient():
    model = sharp(GPTConfig(30, 12))
    model.lm_head.weight = model.wte.weight
    tokens = torch.randint(30, (9, 12), generator=gen())
    at = torch.rand(9, 12, generator=gen()) < .5
    same(model, Batch(tokens, tokens, at, at), at)
    model.zero_grad(set_to_none=True)
    model.wpe.weight.requires_grad_(False)
    assert fused_step(model, Batch(tokens, tokens, at, at), at, learn=True)
    assert model.wpe.weight.grad is None
    once = model.wte.weight.grad.clone()
    fused_step(model, Batch(tokens, tokens, at, at), at, learn=True)
    torch.testing.assert_close(model.wte.weight.grad, 2 * once)

def run(fused, monkeypatch, task, **kwargs):
    with monkeypatch.context() as m:
        if not fused: m.setattr(train, 'fused_page', lambda: None)
        model = GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len))
        return model, list(fit(model, task, 50, 32, warmup=10, eval_every=25, **kwargs))

@pytest.mark.parametrize('kwargs', [{}, dict(freeze=['mlp', 'pos']), dict(lr_scale=dict(tok=5, attn=.5), schedule='hold', decay_steps=50)])
def test_fifty_steps_give_the_same_network(monkeypatch, kwargs):
    task = tasks['haystack'](n_pairs=5)
    (a, ra), (b, rb) = (run(fused, monkeypatch, task, **kwargs) for fused in (True, False))
    for x, y in zip(ra, rb): assert abs(x.loss - y.loss) < 1e-4 and (x.accuracy is None or abs(x.accuracy - y.accuracy) < .003)
    for (k, p), q in zip(a.named_parameters(), b.parameters()):
        if not k.endswith('c_attn.bias'): torch.testing.assert_close(p, q, atol=1e-4, rtol=1e-3) # Adam blows up the rounding of a key's bias, whose gradient is zero

def test_fit_takes_the_fused_way(monkeypatch):
    seen, real = [], fused.fused_step
    monkeypatch.setattr(fused, 'fused_step', lambda *args, **kwargs: seen.append(real(*args, **kwargs)) or seen[-1])
    task = tasks['haystack'](n_pairs=3)
    list(fit(GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len)), task, 2, 8))
    assert len(seen) == 3 and None not in seen

class Loud(GPT):
    "A network of somebody's own"
    def forward(self, tokens, at=None): return 2 * super().forward(tokens, at)

def changed():
    cfg = GPTConfig(20, 11)
    yield 'subclass', Loud(cfg)
    hooked = GPT(cfg)
    hooked.h[0].mlp.register_forward_hook(lambda m, i, o: o)
    yield 'hook', hooked
    wired = hardwire(GPT(cfg))
    yield 'wired', wired
    yield 'double', GPT(cfg).double()
    yield 'dropout', GPT(GPTConfig(20, 11, dropout=.1))
    own = GPT(cfg)
    own.h[1].forward = lambda x, at=None: x
    yield 'own forward', own
    swapped = GPT(cfg)
    swapped.h[0].mlp = torch.nn.Identity()
    yield 'another part', swapped
    wide = GPT(GPTConfig(20, 11, n_embd=128))
    yield 'wide', wide
    watched = GPT(cfg)
    watched.wte.weight.register_hook(lambda g: g)
    yield 'hook of a weight', watched
    for name in 'embed', 'stream':
        own = GPT(cfg)
        setattr(own, name, lambda tokens, *args, own=own: own.wte(tokens))
        yield f'own {name}', own
    ahead = GPT(cfg)
    ahead.h[0].attn.causal = False
    yield 'looks ahead', ahead
    padded = GPT(cfg)
    padded.wte.padding_idx = 3
    yield 'a token without gradient', padded

@pytest.mark.parametrize('what,model', list(changed()), ids=lambda x: x if isinstance(x, str) else '')
def test_what_is_left_to_autograd(what, model):
    tokens = torch.randint(20, (6, 11), generator=gen())
    at = torch.rand(6, 11, generator=gen()) < .4
    batch = Batch(tokens, tokens, at, at)
    assert fused_step(model, batch, at, learn=True) is None and all(p.grad is None for p in model.parameters())
    assert train.backward(model, batch) > 0

def test_changed_methods_and_surroundings(monkeypatch):
    model = GPT(GPTConfig(20, 11))
    assert whole_and_plain(model)
    with torch.autocast('cpu', torch.bfloat16): assert whole_and_plain(model) is None
    for kind, name in (MLP, 'forward'), (torch.nn.Linear, 'forward'), (GPT, 'stream'):
        with monkeypatch.context() as m:
            m.setattr(kind, name, functools.wraps(getattr(kind, name))(lambda self, x, *args: x))
            assert whole_and_plain(model) is None
        assert whole_and_plain(model)

def members(task, n): return [GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len), seed=s) for s in range(n)]

@pytest.mark.parametrize('name', ['haystack', 'dyck', 'union'])
def test_members_take_the_fused_way_and_give_what_they_give_alone(monkeypatch, name):
    task = tasks[name](**{'haystack': dict(n_pairs=5), 'dyck': dict(seq_len=20)}.get(name, dict(length=8)))
    alone, many, slow = (members(task, 3) for _ in range(3))
    seen, real = [], fused.fused_lines
    monkeypatch.setattr(fused, 'fused_lines', lambda *args: seen.append(real(*args)) or seen[-1])
    recs = list(fit_many(many, task, 20, 16, warmup=5, eval_every=20))
    assert len(seen) == 21 and None not in seen
    with monkeypatch.context() as m:
        m.setattr('proc_nb.train.ensemble.fused_page', lambda: None)
        list(fit_many(slow, task, 20, 16, warmup=5, eval_every=20))
    for i, (a, b, c) in enumerate(zip(alone, many, slow)):
        last = list(fit(a, task, 20, 16, seed=i, warmup=5, eval_every=20))[-1]
        assert last.accuracy == recs[-1][i].accuracy and abs(last.loss - recs[-1][i].loss) < 1e-6
        for (k, p), q, r in zip(a.named_parameters(), b.parameters(), c.parameters()):
            if k.endswith('c_attn.bias'): continue # rounding alone moves a key's bias, and it changes no output
            torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-4, msg=k)
            torch.testing.assert_close(r, q, atol=1e-5, rtol=1e-3, msg=k)

def test_members_that_were_changed_are_left_to_autograd(monkeypatch):
    task = tasks['haystack'](n_pairs=3)
    net = ensemble.Ensemble(members(task, 2))
    rows = task.sample(8, gen())
    def fused_way(): return ensemble.fused_many(net, [(rows.tokens, rows.targets, rows.loss_mask)] * 2)
    assert fused_way()[1].shape == (2,)
    monkeypatch.setattr(ensemble.MemberNorm, 'forward', lambda self, x: x)
    assert fused_way() is None
    monkeypatch.undo()
    with monkeypatch.context() as m:
        m.setattr(net, 'embed', lambda tokens, past=0: net.wte(tokens), raising=False)
        assert fused_way() is None
    vars(net).pop('embed', None)
    assert fused_way()
    assert ensemble.fused_many(net, [(rows.tokens + 500, rows.targets, rows.loss_mask)] * 2) is None

def test_wrong_tokens_are_told_as_before():
    model, tokens = GPT(GPTConfig(20, 11)), torch.full((2, 11), 20)
    at = torch.ones(2, 11, dtype=torch.bool)
    with pytest.raises(IndexError): train.backward(model, Batch(tokens, tokens, at, at))

def test_what_diverges_is_told_as_before():
    task = tasks['haystack'](n_pairs=3)
    model = GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len))
    with pytest.raises(FloatingPointError): list(fit(model, task, 20, 8, lr=1e30, warmup=0, clip=1e30))

def test_large_scores_stay_finite():
    model, tokens = GPT(GPTConfig(20, 11)), torch.randint(20, (9, 11), generator=gen())
    with torch.no_grad():
        for p in model.parameters(): p.mul_(300)
    at = torch.ones(9, 11, dtype=torch.bool)
    loss, right = fused_step(model, Batch(tokens, tokens, at, at), at, learn=True)
    want, hits, _ = plain(model, Batch(tokens, tokens, at, at), at)
    torch.testing.assert_close(loss.double(), want, rtol=1e-4, atol=0)
    assert right == int(hits.sum()) and all(p.grad.isfinite().all() for p in model.parameters())

def test_several_threads_at_once():
    task = tasks['haystack'](n_pairs=8)
    def losses(seed): return [r.loss for r in fit(GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len), seed=seed), task, 15, 64, seed=seed)]
    alone = [losses(i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool: assert list(pool.map(losses, range(4))) == alone

def test_without_numba():
    code = ("import sys; sys.modules['numba'] = None\n"
        "from proc_nb.models.gpt import GPT, GPTConfig; from proc_nb.tasks.downstream import Haystack; from proc_nb.train.loop import fit\n"
        "task = Haystack(n_pairs=3)\n"
        "model = GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len))\n"
        "print([r.loss > 0 for r in fit(model, task, 2, 8)], 'proc_nb.train.fused' in sys.modules)")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '[True, True] False', done.stdout + done.stderr

TRAINED = """from proc_nb.train.fused import compiled
from proc_nb.all import *
task = Haystack(n_pairs=3)
model = GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len), seed=0)
for _ in fit(model, task, 60, 16, warmup=5): pass
print(sum(compiled().stats.cache_hits.values()), sum(p.detach().double().sum() for p in model.parameters()).item())"""

def test_who_compiles_and_who_reads_get_the_same_network(tmp_path):
    "Two processes and an empty cache: one has it compiled, the other waits, and a seed means the same in both"
    env = {**os.environ, 'NUMBA_CACHE_DIR': str(tmp_path)}
    runs = [subprocess.Popen([sys.executable, '-c', TRAINED], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [r.communicate() for r in runs]
    assert len({out for out, _ in told}) == 1 and told[0][0].startswith('1 '), told
    assert any('Compiling the fused step, once' in err for _, err in told)
