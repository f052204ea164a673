"The fast paths give the numbers of the plain ones, and stay visible to hooks and function transforms."
import pytest, torch, torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from proc_nb.all import *
from proc_nb.train.loss import backward, by_length
from proc_nb.train.loop import rate, Run

def gen(seed=0): return torch.Generator().manual_seed(seed)

def plain_attention(q, k, v):
    future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).triu(1)
    return (q @ k.mT / q.shape[-1] ** .5).masked_fill(future, -torch.inf).softmax(-1) @ v

def plain_logits(model, tokens): # the model written out once more, without any of its shortcuts
    x = model.wte(tokens) + model.wpe.weight[:tokens.shape[1]]
    for b in model.h:
        y = plain_attention(*b.attn.qkv(b.ln_1(x)))
        x = x + b.attn.c_proj(y.transpose(1, 2).flatten(2))
        x = x + b.mlp(b.ln_2(x))
    return model.lm_head(model.ln_f(x))

@given(heads=st.sampled_from([1, 2, 4]), width=st.sampled_from([2, 4, 8, 16]), layers=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_backward_is_the_plain_gradient(heads, width, layers, seed):
    task = tasks['haystack'](n_pairs=6)
    cfg = GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, n_layer=layers, n_head=heads, n_embd=heads * width)
    model, batch = GPT(cfg, seed=seed), task.sample(40, gen(seed))
    want = F.cross_entropy(plain_logits(model, batch.tokens)[batch.loss_mask], batch.targets[batch.loss_mask])
    grads = torch.autograd.grad(want, list(model.parameters()))
    torch.testing.assert_close(backward(model, batch), want.detach(), atol=1e-5, rtol=0)
    for p, g in zip(model.parameters(), grads): torch.testing.assert_close(p.grad, g, atol=1e-5, rtol=0)

@given(st.integers(0, 999), st.sampled_from(['one', 'some', 'mixed']))
@settings(max_examples=20, deadline=None)
def test_any_mask(seed, kind):
    model, g = GPT(GPTConfig(vocab_size=20, block_size=11), seed=seed), gen(seed)
    tokens = torch.randint(20, (6, 11), generator=g)
    mask = torch.zeros(6, 11, dtype=torch.bool)
    mask[torch.arange(6), torch.randint(11, (6,), generator=g)] = True
    if kind == 'some': mask = torch.rand(6, 11, generator=g) < .4
    if kind == 'mixed': mask[2] = False
    torch.testing.assert_close(model(tokens, at=mask), plain_logits(model, tokens)[mask], atol=1e-5, rtol=0)

def test_groups_hold_every_row_once():
    task = tasks['haystack']()
    batch = task.sample(300, gen())
    for members in (1, 3):
        groups = by_length(batch, 900, members)
        assert sorted(r for b in groups for r in b.loss_mask.sum(1).tolist()) == [1] * 300
        assert sum(int(b.tokens.sum()) for b in groups) <= int(batch.tokens.sum())
        assert sorted(t for b in groups for t in b.targets[b.loss_mask].tolist()) == sorted(batch.targets[batch.loss_mask].tolist())
        if members == 1: continue
        for b in groups: # each member's rows stay its own, in order of members
            n = len(b) // members
            for m in range(members):
                own = {tuple(r) for r in batch.tokens[m * 100:(m + 1) * 100, :b.tokens.shape[1]].tolist()}
                assert {tuple(r) for r in b.tokens[m * n:(m + 1) * n].tolist()} <= own

def test_hooks_see_the_short_way():
    model, seen = GPT(GPTConfig(vocab_size=20, block_size=11)), []
    for name, m in model.named_modules():
        if isinstance(m, torch.nn.Linear): m.register_forward_hook(lambda m, i, o, name=name: seen.append(name))
    model(torch.zeros(3, 11, dtype=torch.int64), at=torch.tensor([2, 5, 9]))
    assert seen == [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]

def test_per_row_gradients_by_function_transforms():
    model = GPT(GPTConfig(vocab_size=20, block_size=11))
    tokens, params = torch.randint(20, (4, 11), generator=gen()), dict(model.named_parameters())
    def loss(params, row): return F.cross_entropy(torch.func.functional_call(model, params, (row[None, :-1],))[0], row[1:])
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))({k: v.detach() for k, v in params.items()}, tokens)
    for i, row in enumerate(tokens):
        want = torch.autograd.grad(loss(params, row), list(params.values()))
        for k, g in zip(params, want): torch.testing.assert_close(each[k][i], g, atol=1e-5, rtol=0)

def test_same_run_as_plain_steps():
    task = tasks['haystack'](n_pairs=5)
    model, other = (GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len)) for _ in range(2))
    run = Run(model, task, batch_size=32, warmup=10)
    opt, g = torch.optim.AdamW(other.parameters(), 1e-3, weight_decay=1e-3), gen()
    for i in range(20):
        opt.param_groups[0]['lr'] = 1e-3 * rate(i, 10)
        b = task.sample(32, g)
        opt.zero_grad()
        F.cross_entropy(plain_logits(other, b.tokens)[b.loss_mask], b.targets[b.loss_mask]).backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 1.)
        opt.step()
        run.step()
    gap = {k: float((a - b).detach().abs().max()) for (k, a), b in zip(model.named_parameters(), other.parameters()) if not k.endswith('c_attn.bias')}
    assert max(gap.values()) < 1e-5, gap

def test_sixteen_bits_on_request():
    task = tasks['haystack'](n_pairs=5)
    fresh = lambda i=0: GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len), seed=i)
    plain, many = [r.loss for r in fit(fresh(), task, 5, 32)], [r.loss[1] for r in fit_many([fresh(1), fresh()], task, 5, 32, seeds=[1, 0])]
    with torch.autocast('cpu', torch.bfloat16, cache_enabled=False):
        half, half_many = [r.loss for r in fit(fresh(), task, 5, 32)], [r.loss[1] for r in fit_many([fresh(1), fresh()], task, 5, 32, seeds=[1, 0])]
    for a, b, c, d in zip(plain, many, half, half_many): assert abs(a - b) < 1e-5 and a != c and max(abs(a - c), abs(a - d)) < .01

@pytest.mark.full
def test_a_compiled_model_learns_the_same():
    task = tasks['haystack'](n_pairs=5)
    models = [GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len)) for _ in range(2)]
    models[1].compile(dynamic=True)
    for a, b in zip(*[fit(m, task, 50, 32, eval_every=25) for m in models]): assert abs(a.loss - b.loss) < 1e-4 and a.accuracy == b.accuracy

@pytest.mark.full
def test_faster_than_what_one_would_write():
    from proc_nb.dev.ways import in_turns, ours, plain, sizes_for
    task = tasks['haystack']()
    cfg = sizes_for(task)
    found = in_turns(dict(ours=ours(task, cfg, 400), plain=plain(task, cfg, 400)), rounds=5, steps=2)
    assert found['ours']['times']['median'] > 2, found
