"EK-FAC agrees with an independent implementation, reads foreign models, and refuses what it cannot do."
import json, subprocess, sys, time
from dataclasses import replace
from copy import deepcopy
from functools import partial
import pytest, torch, torch.nn as nn, torch.nn.functional as F
from proc_nb.all import *
from proc_nb.tasks.core import next_token
from proc_nb.influence.capture import *
from proc_nb.influence.gradients import *
from proc_nb.influence.ekfac import *
from proc_nb.influence.retrain import *
from proc_nb.commands import influence as influence_cli

HEARD = dict(capture_output=True, text=True, timeout=300)

def trained(n_embd=16, steps=200, **kwargs):
    task = Identity(length=6, n_symbols=12, lengths='fixed')
    model = GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, n_embd=n_embd, **kwargs), seed=0)
    for _ in fit(model, task, steps=steps, lr=5e-3, warmup=20, eval_every=steps, eval_rows=10): pass
    return task, model

def cut(batch): return Batch(*(x[:, :-1] for x in (batch.tokens, batch.targets, batch.loss_mask)), task=batch.task)

def everywhere(batch): return Batch(batch.tokens, batch.targets, torch.ones_like(batch.loss_mask), task=batch.task)

def kron(model, folder, train, queries, damping=None, modules='mlp'):
    "kronfluence's scores on the same rows, and the CPU seconds that fitting and scoring took"
    pytest.importorskip('kronfluence', reason='pip install --no-deps kronfluence')
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task as KronTask
    names = list(pick_layers(model, modules))
    class Copying(KronTask):
        def compute_train_loss(self, batch, model, sample=False):
            logits, labels = model(batch[0]), batch[1].flatten()
            logits = getattr(logits, 'logits', logits).flatten(0, -2)
            if sample: labels = logits.detach().softmax(-1).multinomial(1).flatten()
            return F.cross_entropy(logits, labels, reduction='sum')
        def compute_measurement(self, batch, model): return self.compute_train_loss(batch, model)
        def get_influence_tracked_modules(self): return names
    data = [torch.utils.data.TensorDataset(b.tokens, b.targets) for b in (train, queries)]
    task = Copying()
    a = Analyzer('a', prepare_model(deepcopy(model), task), task, cpu=True, output_dir=str(folder), disable_tqdm=True)
    begun = time.process_time()
    a.fit_all_factors('f', data[0], per_device_batch_size=64, factor_args=FactorArguments(strategy='ekfac', use_empirical_fisher=True), overwrite_output_dir=True)
    fitted = time.process_time()
    a.compute_pairwise_scores('s', 'f', data[1], data[0], per_device_query_batch_size=64, per_device_train_batch_size=64,
        score_args=ScoreArguments(damping_factor=damping), overwrite_output_dir=True)
    done = time.process_time()
    return a.load_pairwise_scores('s')['all_modules'], fitted - begun, done - fitted

@pytest.mark.parametrize('damping', [None, 1e-3])
def test_kronfluence_gives_the_same_scores(tmp_path, g, damping):
    task, model = trained()
    train, queries = (everywhere(cut(task.sample(n, g, split=s))) for n, s in ((256, 'train'), (16, 'validation')))
    theirs, *_ = kron(model, tmp_path, train, queries, damping)
    ours = EKFAC(model, damping=damping).fit(train, fisher='empirical').scores(queries, train)
    same_as_kron(ours, theirs)

def same_as_kron(ours, theirs):
    r = torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten().float()]))[0, 1]
    assert r > .999 and torch.allclose(ours, theirs.float(), atol=1e-3 * float(theirs.abs().max()))

def test_kronfluence_agrees_on_a_classifier(tmp_path, g):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    rows = example_rows(torch.randn(120, 5, generator=g), torch.randint(3, (120,), generator=g))
    theirs, *_ = kron(model, tmp_path, rows, rows[:8], modules='all')
    same_as_kron(EKFAC(model, 'all').fit(rows, fisher='empirical').scores(rows[:8], rows), theirs)

def test_kronfluence_agrees_on_a_language_model_with_its_own_head(tmp_path, g):
    lm = foreign('untied', scale=2)
    names = [f'model.layers.{l}.mlp.{k}_proj' for l in (0, 1) for k in ('gate', 'up', 'down')]
    rows = everywhere(cut(next_token(torch.randint(30, (60, 9), generator=g), torch.ones(60, 9, dtype=torch.bool))))
    theirs, *_ = kron(lm, tmp_path, rows, rows[:6], modules=[*names, 'lm_head'])
    same_as_kron(EKFAC(lm, [*names, 'lm_head']).fit(rows, fisher='empirical').scores(rows[:6], rows), theirs)

def timed(f):
    "What `f` gives, and its CPU seconds, which other programs do not change"
    begun = time.process_time()
    return f(), time.process_time() - begun

def race(folder, g, rounds=3, docs=512, queries=64, n_layer=4, n_embd=128):
    "CPU seconds of kronfluence and of ours on the same rows, one after the other, and of the passes alone"
    task = Identity(length=30, n_symbols=99, lengths='fixed')
    model = GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, n_layer=n_layer, n_embd=n_embd), seed=0)
    train, asked = (everywhere(cut(task.sample(n, g))) for n in (docs, queries))
    for k in range(rounds):
        theirs, fit_k, score_k = kron(model, folder/str(k), train, asked)
        e, fit = timed(lambda: EKFAC(model).fit(train, fisher='empirical', path=folder/f'{k}.safetensors'))
        ours, score = timed(lambda: e.scores(asked, train))
        _, floor = timed(lambda: [layer_pass(model, e.layers, b) for _, b in chunks(train)])
        r = float(torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten().float()]))[0, 1])
        yield dict(round=k, kronfluence_fit=fit_k, kronfluence_scores=score_k, fit=fit, scores=score, one_pass=floor, correlation=r)

@pytest.mark.full
def test_not_slower_than_kronfluence(tmp_path, g):
    rows = [*race(tmp_path, g)]
    fit, scores = (sorted(r[f'kronfluence_{k}'] / r[k] for r in rows)[1] for k in ('fit', 'scores'))
    print(*rows, f'kronfluence / ours, median of 3: fit {fit:.2f}, scores {scores:.2f}', sep='\n')
    assert scores >= 1

@pytest.fixture
def gpt2():
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=30, n_positions=16, n_embd=12, n_layer=2, n_head=2))

def test_gpt2_of_transformers(gpt2, g):
    model = HFCausalLM(gpt2)
    rows = next_token(torch.randint(30, (8, 10), generator=g), torch.ones(8, 10, dtype=torch.bool))
    dot = GradDot(model, 'all')
    assert len(dot.layers) == 8
    scores = dot.scores(rows[:2], rows)
    def grads(b):
        loss = F.cross_entropy(model(b.tokens, at=b.loss_mask), b.targets[b.loss_mask], reduction='sum')
        return torch.autograd.grad(loss, [p for m in dot.layers.values() for p in m.parameters()])
    model.eval()
    by_hand = torch.stack([torch.stack([sum((x * y).sum() for x, y in zip(grads(rows[q:q+1]), grads(rows[d:d+1]))) for d in range(8)]) for q in range(2)])
    assert torch.allclose(scores, by_hand, rtol=1e-3, atol=1e-4)
    assert torch.isfinite(EKFAC(model).fit(rows).scores(rows[:2], rows)).all()
    with pytest.raises(ValueError, match='tied weights'): GradDot(model, 'lm.lm_head')

class Twice(nn.Module):
    "One linear layer, called twice, under two names"
    def __init__(self):
        super().__init__()
        self.emb, self.a, self.out = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9)
        self.b = self.a
    def forward(self, tokens, at=None):
        x = self.out(torch.tanh(self.b(torch.tanh(self.a(self.emb(tokens))))))
        return x if at is None else x[at]

def rows_of(g, n=6, t=5, vocab=9): return next_token(torch.randint(vocab, (n, t), generator=g), torch.rand(n, t, generator=g) < .7)

def test_a_layer_called_twice_adds_up(g):
    model, b = Twice(), rows_of(g)
    scores = GradDot(model, 'a').scores(b, b)
    def grad(i):
        r = b[i:i+1]
        return torch.cat([x.flatten() for x in torch.autograd.grad(F.cross_entropy(model(r.tokens, at=r.loss_mask), r.targets[r.loss_mask], reduction='sum'),
            [model.a.weight, model.a.bias])])
    grads = torch.stack([grad(i) for i in range(len(b))])
    assert torch.allclose(scores, grads @ grads.T, rtol=1e-3, atol=1e-4)

def test_what_cannot_be_traced_is_said(g):
    class Unused(Twice):
        def forward(self, tokens, at=None):
            x = F.linear(self.emb(tokens), self.a.weight, self.a.bias) @ self.out.weight.T
            return x if at is None else x[at]
    class Broken(Twice):
        def forward(self, tokens, at=None): return super().forward(tokens, at) * torch.nan
    b = rows_of(g)
    with pytest.raises(ValueError, match='a is never called'): GradDot(Unused(), 'a').scores(b, b)
    with pytest.raises(FloatingPointError, match='not finite'): GradDot(Broken(), 'a').scores(b, b)
    with pytest.raises(KeyError, match="no linear layer 'c'"): GradDot(Twice(), ['c'])
    with pytest.raises(ValueError, match='No linear layer belongs to'): GradDot(Twice(), 'mlp')
    with pytest.raises(ValueError, match='There are no documents'): GradDot(Twice(), 'a').scores(b, [])
    with pytest.raises(ValueError, match='no rows to fit'): EKFAC(Twice(), 'a').fit([])
    with pytest.raises(ValueError, match='has no layer a'): GradDot(Twice(), 'a').scores(b, b, model=GPT(GPTConfig()))

# ---- any model with linear layers: the right rows, whatever the shape, or a refusal in words

def by_hand(model, layers, rows, loss=None):
    "Gradients of every row's loss by autograd, one row at a time, [n, numbers]"
    model.eval()
    def one(i):
        r = rows[i:i+1]
        out = model(r.tokens)
        out = getattr(out, 'logits', out)[r.loss_mask]
        total = (loss or partial(F.cross_entropy, reduction='none'))(out, r.targets[r.loss_mask]).sum()
        grads = torch.autograd.grad(total, [p for m in layers.values() for p in m.parameters()])
        return torch.cat([x.flatten() for x in grads])
    return torch.stack([one(i) for i in range(len(rows))])

def agree(got, want, rel=1e-4): assert (got - want).abs().max() <= rel * want.abs().max()

class TimeFirst(nn.Module):
    "An encoder as PyTorch's default has it: [tokens, rows, width]"
    def __init__(self, vocab=9, width=8):
        super().__init__()
        self.emb, self.out = nn.Embedding(vocab, width), nn.Linear(width, vocab)
        self.enc = nn.TransformerEncoderLayer(width, 2, 16)
    def forward(self, tokens, at=None):
        x = self.out(self.enc(self.emb(tokens).transpose(0, 1))).transpose(0, 1)
        return x if at is None else x[at]

class Flat(nn.Module):
    "Rows and tokens in one line, row after row or token after token"
    def __init__(self, time_first, vocab=9, width=8):
        super().__init__()
        self.time_first, self.emb, self.fc, self.out = time_first, nn.Embedding(vocab, width), nn.Linear(width, width), nn.Linear(width, vocab)
    def forward(self, tokens, at=None):
        x = self.emb(tokens)
        x = (x + x.cumsum(1)).transpose(0, 1) if self.time_first else x + x.cumsum(1)
        y = self.out(torch.tanh(self.fc(x.flatten(0, 1)))).unflatten(0, x.shape[:2])
        y = y.transpose(0, 1) if self.time_first else y
        return y if at is None else y[at]

MODELS = dict(time_first=TimeFirst, flat=partial(Flat, False), flat_time_first=partial(Flat, True))
@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('n,t', [(6, 5), (5, 5), (4, 8)]) # rows and tokens that a shape can and cannot tell apart
def test_rows_are_found_whatever_the_shape(name, n, t, g):
    torch.manual_seed(0)
    model, rows = MODELS[name](), rows_of(g, n, t)
    dot = GradDot(model, 'all')
    grads = by_hand(model, dot.layers, rows)
    agree(dot.scores(rows, rows), grads @ grads.T)
    agree(dot.scores(rows, [rows[:2], rows[2:]], rows=3), grads @ grads.T)
    agree(dot.scores(rows, rows, by='token').sum(2), grads @ grads.T)
    agree(dot.norms(rows), grads.norm(dim=1))
    a, b = (EKFAC(model, 'all').fit([rows] * 9, fisher='empirical', rows=k).scores(rows, rows) for k in (1, n))
    agree(a, b, 1e-3) # one row at a time cannot mix rows up

def test_what_serves_all_rows_at_once_is_refused(g):
    class Positions(Flat):
        def forward(self, tokens):
            place = self.fc(self.emb.weight[:tokens.shape[1]])
            return self.out(self.emb(tokens) + place)
    class Mixed(Flat):
        def forward(self, tokens):
            x = self.fc(self.emb(tokens))
            return self.out(x - x.mean(0, keepdim=True))
    for m in (Positions(False), Mixed(False)):
        for n, t in ((6, 5), (5, 5)):
            b = rows_of(g, n, t)
            with pytest.raises(ValueError, match='fc was called with values of shape .* each position one row of its own'):
                GradDot(m, 'fc').scores(b, b)

def test_an_input_that_is_changed_afterwards_is_refused(g):
    class InPlace(Flat):
        def forward(self, tokens):
            x = self.emb(tokens) * 1
            y = self.fc(x)
            x += 1
            return self.out(y + x)
    b = rows_of(g)
    with pytest.raises(ValueError, match='What goes into fc is changed in place'): GradDot(InPlace(False), 'fc').scores(b, b)

def test_a_plain_classifier_and_a_regression(g):
    torch.manual_seed(0)
    x, y = torch.randn(40, 6, generator=g), torch.randint(3, (40,), generator=g)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    rows, dot = example_rows(x, y), GradDot(model, 'all')
    grads = by_hand(model, dot.layers, rows)
    agree(dot.scores(rows[:5], rows), grads[:5] @ grads.T)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 16)
    agree(EKFAC(model, 'all').fit(loader).scores(rows[:5], loader), EKFAC(model, 'all').fit([rows[:16], rows[16:32], rows[32:]]).scores(rows[:5], rows))
    squared = partial(F.mse_loss, reduction='none')
    goal = example_rows(x, torch.randn(40, 3, generator=g))
    grads = by_hand(model, dot.layers, goal, squared)
    mse = GradDot(model, 'all', loss=squared)
    agree(mse.scores(goal[:5], goal), grads[:5] @ grads.T)
    agree(row_losses(model, goal, squared), squared(model(x), goal.targets).sum(1).detach())
    with pytest.raises(ValueError, match='your own `draw`'): EKFAC(model, 'all', loss=squared).fit(goal)
    with pytest.raises(ValueError, match="reduction='none'"): GradDot(model, 'all', loss=F.mse_loss).scores(goal, goal)
    def normal(out, generator): return out + torch.randn(out.shape, generator=generator) * .5 ** .5 # as squared errors say
    drawn = EKFAC(model, ['2'], loss=squared, draw=normal).fit([goal] * 100)
    feats = torch.cat([torch.tanh(model[0](x)), torch.ones(40, 1)], 1).detach() # the exact curvature of the last layer is 2 * feats' feats, for each output
    exact = 2 * feats.T @ feats / 40
    eig = torch.linalg.eigvalsh(exact)
    agree(drawn.state['2.L'].mean(0).sort().values, eig, .1)
    assert torch.isfinite(EKFAC(model, 'all', loss=squared).fit(goal, fisher='empirical').scores(goal[:2], goal)).all()

def test_a_forward_that_fits_no_row_is_said(g):
    class Pooled(Flat):
        def forward(self, tokens): return super().forward(tokens).mean(1)
    b = rows_of(g)
    with pytest.raises(ValueError, match='Pooled gives .* for rows asked at'): GradDot(Pooled(False), 'fc').scores(b, b)

HEADS = dict(gpt2=('GPT2', dict(n_embd=12, n_layer=2, n_head=2, n_positions=16)), cohere=('Cohere', dict(logit_scale=.0625)),
    granite=('Granite', dict(logits_scaling=8., embedding_multiplier=3.)), gemma2=('Gemma2', dict(final_logit_softcapping=1., head_dim=6)),
    untied=('Llama', dict(tie_word_embeddings=False)))
def foreign(name, vocab=30, scale=5):
    tr = pytest.importorskip('transformers')
    kind, extra = HEADS[name]
    sizes = dict(vocab_size=vocab, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    if kind != 'GPT2': sizes |= dict(hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16)
    torch.manual_seed(0)
    lm = getattr(tr, f'{kind}ForCausalLM' if kind != 'GPT2' else 'GPT2LMHeadModel')(getattr(tr, f'{kind}Config')(**sizes, **extra))
    for p in lm.parameters(): p.data.mul_(scale if p.dim() > 1 else 1) # far from a uniform answer
    return lm.eval()

@pytest.mark.parametrize('name', HEADS)
def test_the_logits_are_the_models_own(name, g):
    lm = foreign(name)
    rows = next_token(torch.randint(30, (6, 10), generator=g), torch.rand(6, 10, generator=g) < .7)
    dot = GradDot(HFCausalLM(lm), 'all')
    grads = by_hand(lm, dot.layers, rows)
    agree(dot.scores(rows[:3], rows), grads[:3] @ grads.T, 1e-3)
    agree(GradDot(lm, [n.removeprefix('lm.') for n in dot.layers]).scores(rows[:3], rows), grads[:3] @ grads.T, 1e-3)
    assert not any(n.endswith(('lm_head', 'embed_out')) for n in dot.layers)

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype, g, tmp_path):
    task, model = trained(steps=30)
    rows, asked = task.sample(60, g), task.sample(4, g)
    want = EKFAC(model).fit(rows, fisher='empirical').scores(asked, rows)
    other = deepcopy(model).to(dtype)
    for x in (model.state_dict(), ) if dtype == torch.float64 else (): assert all(v.dtype == torch.float32 for v in x.values())
    tracer = EKFAC(other).fit(rows, fisher='empirical', path=tmp_path/'f.safetensors')
    got = tracer.scores(asked, rows)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.corrcoef(torch.stack([got.flatten().float(), want.flatten()]))[0, 1] > (.999 if dtype == torch.float64 else .97)
    assert torch.equal(EKFAC.load(tmp_path/'f.safetensors', other).scores(asked, rows), got)
    assert torch.isfinite(EKFAC(other).fit(rows).scores(asked, rows, rank=2)).all() and torch.isfinite(row_losses(other, rows)).all()

def test_one_token_one_score(g):
    task, _ = trained(steps=1)
    rows = task.sample(12, g)
    alone = rows.loss_mask & (rows.loss_mask.cumsum(1) == 1)
    sizes = GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, n_embd=16)
    for model in (GPT(sizes), GPT(replace(sizes, causal=False, shared=True)), GPT(replace(sizes, causal=False))):
        for mask in (rows.loss_mask, alone):
            b = Batch(rows.tokens, rows.targets, mask, task=task)
            dot = GradDot(model)
            per = dot.scores(b[:3], b, by='token')
            assert per.shape[2] <= b.tokens.shape[1]
            agree(per.sum(2), dot.scores(b[:3], b))
            seen = b.loss_mask.any(0).nonzero().max()
            if model.causal: assert not per[:, :, seen + 1:].any()

def test_the_damping_that_is_asked_for_counts(g, tmp_path):
    task, model = trained(steps=20)
    rows, asked = task.sample(60, g), task.sample(3, g)
    EKFAC(model).fit(rows, path=tmp_path/'f.safetensors')
    fresh = EKFAC(model, damping=.5).fit(rows)
    again = EKFAC(model, damping=.5).fit(rows, path=tmp_path/'f.safetensors')
    assert again.damping == .5 and torch.equal(again.scores(asked, rows), fresh.scores(asked, rows))
    assert torch.equal(EKFAC.load(tmp_path/'f.safetensors', model, damping=.5).scores(asked, rows), fresh.scores(asked, rows))
    fresh.save(tmp_path/'g.safetensors')
    assert EKFAC.load(tmp_path/'g.safetensors', model).damping == .5 and EKFAC.load(tmp_path/'g.safetensors', model, damping=None).damping is None
    assert EKFAC(model).fit(rows, path=tmp_path/'g.safetensors').damping is None

class Twin(nn.Module):
    "A causal model without `at`"
    causal = True
    def __init__(self, model):
        super().__init__()
        self.h = model
    def forward(self, tokens): return self.h(tokens)

def test_no_at_is_needed(g):
    task, model = trained(steps=20)
    rows = task.sample(30, g)
    a = EKFAC(model, 'all').fit(rows)
    b = EKFAC(Twin(model), [f'h.{n}' for n in a.layers]).fit(rows)
    agree(a.scores(rows[:4], rows), b.scores(rows[:4], rows), 1e-3)
    agree(row_losses(model, rows), row_losses(Twin(model), rows))

def test_the_model_is_left_as_it_was(g):
    task, model = trained(steps=2)
    before, model.h[0].mlp.c_fc.weight.requires_grad = {k: v.clone() for k, v in model.state_dict().items()}, False
    model.train()
    b = task.sample(8, g)
    EKFAC(model, 'all').fit(b).scores(b, b)
    assert model.training and [p.requires_grad for p in model.h[0].mlp.parameters()] == [False, True, True, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and not any(m._forward_hooks for m in model.modules())

def test_padding_changes_nothing(g):
    task, model = trained(steps=20)
    b = Identity(length=6, n_symbols=12).sample(40, g)
    wide = Batch(*(F.pad(x, (0, 3), value=v) for x, v in ((b.tokens, task.pad), (b.targets, task.pad), (b.loss_mask, False))), task=task)
    model.wpe = nn.Embedding.from_pretrained(F.pad(model.wpe.weight.detach(), (0, 0, 0, 3)))
    model.config.block_size += 3
    one, two = (EKFAC(model).fit(x, fisher='empirical').scores(x[:4], x) for x in (b, wide))
    assert torch.allclose(one, two, rtol=1e-3, atol=1e-3 * float(one.abs().max()))

COMMAND = "import sys; from proc_nb.commands import influence as influence_cli; sys.exit(influence_cli())"

@pytest.fixture
def command(tmp_path):
    "`proc-nb-influence` as installed"
    script = tmp_path/'proc-nb-influence'
    script.write_text(COMMAND, encoding='utf-8')
    def run(**kwargs): return subprocess.run([sys.executable, script, *(str(x) for k, v in kwargs.items() for x in (f'--{k}', v))], **HEARD)
    return run

WORDS = 'the cat dog saw red blue and a house tree'.split()

@pytest.fixture
def folder(tmp_path, g):
    "A folder of `transformers`: a random GPT-2 with a tokenizer of words, documents and queries"
    transformers, tokenizers = pytest.importorskip('transformers'), pytest.importorskip('tokenizers')
    torch.manual_seed(0)
    cfg = transformers.GPT2Config(vocab_size=12, n_positions=16, n_embd=12, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    transformers.GPT2LMHeadModel(cfg).save_pretrained(tmp_path/'gpt2')
    tok = tokenizers.Tokenizer(tokenizers.models.WordLevel({'[none]': 0, **{w: i + 1 for i, w in enumerate(WORDS)}}, unk_token='[none]'))
    tok.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tok, unk_token='[none]').save_pretrained(tmp_path/'gpt2')
    texts = [' '.join(WORDS[i] for i in torch.randint(10, (5 + n % 4,), generator=g)) for n in range(30)]
    (tmp_path/'docs.jsonl').write_text('\n'.join(json.dumps(dict(text=t)) for t in texts), encoding='utf-8')
    (tmp_path/'queries.jsonl').write_text('{"prompt": "the cat saw", "answer": "a tree"}\n{"tokens": [1, 2, 3, 4], "given": 2}', encoding='utf-8')
    return tmp_path

def test_a_gpt2_folder_through_the_command(folder, command):
    args = dict(model=folder/'gpt2', docs=folder/'docs.jsonl', queries=folder/'queries.jsonl', out=folder/'out', part=12, top=2)
    done = command(**args)
    assert done.returncode == 0 and 'Written' in done.stdout, done.stderr
    rows = [json.loads(l) for l in (folder/'out/top.jsonl').read_text(encoding='utf-8').splitlines()]
    assert len(rows) == 2 * 2 * 2 and len(list((folder/'out').glob('scores-*'))) == 3
    from transformers import GPT2LMHeadModel
    net = HFCausalLM(GPT2LMHeadModel.from_pretrained(folder/'gpt2')).eval()
    def tokens(t): return [1 + WORDS.index(w) for w in t.split()]
    docs = padded_rows([tokens(json.loads(l)['text']) for l in (folder/'docs.jsonl').read_text(encoding='utf-8').splitlines()])
    want = EKFAC(net).fit(docs).scores(padded_rows([tokens('the cat saw a tree'), [1, 2, 3, 4]], [3, 2]), docs)
    assert len(EKFAC(net).layers) == 4
    for r in rows: assert r['score'] == pytest.approx(float(want[r['query'], r['line'] - 1]), rel=1e-2, abs=1e-3 * float(want.abs().max()))
    assert {r['line'] - 1 for r in rows if r['query'] == 0 and r['side'] == 'helps'} == {*want[0].topk(2).indices.tolist()}

@pytest.mark.parametrize('change,words', [(dict(model='nowhere'), 'There is no file'), (dict(modules='h.9.mlp'), 'no linear layer'), (dict(queries='empty'), 'is empty'),
    (dict(docs='odd'), 'odd, line 1'), (dict(docs='strange'), 'must be a whole number from 0 to 11'), (dict(docs='deep'), 'deep, line 1: it is nested too deeply'), (dict(top=0), '--top must be a whole number of at least 1'), (dict(docs='nothing'), 'No such file'), (dict(docs=None), '--docs is missing')])
def test_the_command_refuses_in_words(folder, change, words):
    for name, text in dict(empty='', odd='{"texts": "the cat"}', strange='{"tokens": [1, 99]}', deep='[' * 100_000).items(): (folder/name).write_text(text, encoding='utf-8')
    args = dict(model='gpt2', docs='docs.jsonl', queries='queries.jsonl') | change
    with pytest.raises((ValueError, KeyError, FileNotFoundError), match=words):
        influence_cli(out=folder/'out', **{k: v if k in ('modules', 'top') or v is None else folder/v for k, v in args.items()})

MESSY = ['', '{"text": null}', '{"text": "the cat saw a dog", "url": "x", "tokens": null, "meta": {"deep": [1]}}', '   ', '{"text": "red blue", "prompt": "  "}', '{"text": ""}', '{"tokens": []}', '{"text": "a house and a tree", "id": 7}', '']
def messy(folder, *more):
    file = folder/'messy.jsonl'
    file.write_text('\n'.join([*MESSY, *more]), encoding='utf-8')
    return dict(model=folder/'gpt2', docs=file, queries=folder/'queries.jsonl', out=folder/'out', top=2)

def test_blank_lines_and_empty_texts_are_left_out(folder, capsys):
    influence_cli(**messy(folder))
    rows = [json.loads(l) for l in (folder/'out/top.jsonl').read_text(encoding='utf-8').splitlines()]
    assert '3 rows; lines: 5 blank or without text' in capsys.readouterr().out
    assert {r['line']: r['text'] for r in rows} == {n: json.loads(MESSY[n - 1])['text'] for n in {r['line'] for r in rows}} and {r['line'] for r in rows} <= {3, 5, 8}

def test_all_lines_are_looked_at_before_the_fit(folder, monkeypatch):
    from proc_nb.influence import ekfac as influence
    monkeypatch.setattr(influence.EKFAC, 'fit', lambda *a, **k: pytest.fail('the fit began'))
    monkeypatch.setattr('proc_nb.influence.cli.estimate', lambda *a, **k: pytest.fail('the estimate began'))
    args = messy(folder, *['{"text": "the cat saw"}'] * 300, '{"text": "the"}', '{"text": 7}', '{"text": ')
    with pytest.raises(ValueError, match=r'messy.jsonl, line 310: 1 tokens, 1 of them given.* So are 2 more, in line 311, 312. Mend'): influence_cli(**args)

def test_bad_lines_can_be_left_out_and_long_ones_cut(folder, capsys):
    args = messy(folder, '{"text": "the"}', '{"text": "' + 'cat dog ' * 20 + '"}')
    with pytest.raises(ValueError, match='messy.jsonl, line 10: .* in line 11. Mend'): influence_cli(**args)
    influence_cli(**args, skip=True, truncate=True)
    assert '4 rows; lines: 6 blank or without text, 1 that cannot be used, 1 cut' in capsys.readouterr().out

def test_the_same_file_elsewhere_is_the_same_run(folder):
    args = dict(model=folder/'gpt2', docs=folder/'docs.jsonl', queries=folder/'queries.jsonl', out=folder/'out')
    influence_cli(**args)
    was = {p.name: p.stat().st_mtime_ns for p in (folder/'out').glob('scores-*')}
    (folder/'there').mkdir()
    for k in ('docs', 'queries'): args[k] = args[k].rename(folder/'there'/args[k].name)
    influence_cli(**args)
    assert was == {p.name: p.stat().st_mtime_ns for p in (folder/'out').glob('scores-*')}

def test_damping_equal_length_and_factors(folder):
    args = dict(model=folder/'gpt2', docs=folder/'docs.jsonl', queries=folder/'queries.jsonl', out=folder/'out')
    influence_cli(**args)
    lines = args['docs'].read_text(encoding='utf-8').splitlines()
    (folder/'mended.jsonl').write_text('\n'.join(['{"text": "a red house and a blue tree"}', *lines[1:]]), encoding='utf-8')
    influence_cli(**args | dict(docs=folder/'mended.jsonl', out=folder/'again'), factors=folder/'out/factors.safetensors', damping=.01, equal_length=True)
    from proc_nb.influence.cli import Lines, open_model
    net, encode = open_model(folder/'gpt2')
    docs, asked = (next(iter(Lines(folder/f, encode))) for f in ('mended.jsonl', 'queries.jsonl'))
    fitted = EKFAC(net, damping=.01).fit(next(iter(Lines(args['docs'], encode))))
    want = fitted.scores(asked, docs) / fitted.norms(docs)
    rows = [json.loads(l) for l in (folder/'again/top.jsonl').read_text(encoding='utf-8').splitlines()]
    for r in rows: assert r['score'] == pytest.approx(float(want[r['query'], r['line'] - 1]), rel=1e-2, abs=1e-3 * float(want.abs().max()))
    assert {(r['query'], r['query_line']) for r in rows} == {(0, 1), (1, 2)}
    with pytest.raises(ValueError, match='damping was None and is now 0.01'): influence_cli(**args, damping=.01)

def test_a_tokenizer_of_ones_own(folder):
    args = dict(model=folder/'gpt2', docs=folder/'docs.jsonl', queries=folder/'queries.jsonl')
    influence_cli(**args, out=folder/'a')
    for name in ('tokenizer.json', 'tokenizer_config.json'): (folder/'gpt2'/name).rename(folder/name)
    for k, tok in enumerate((folder/'tokenizer.json', folder)):
        influence_cli(**args, out=folder/f'b{k}', tokenizer=tok)
        assert (folder/f'b{k}/top.jsonl').read_text(encoding='utf-8') == (folder/'a/top.jsonl').read_text(encoding='utf-8')
    with pytest.raises(FileNotFoundError, match='There is no tokenizer'): influence_cli(**args, out=folder/'c', tokenizer=folder/'nothing.json')
    with pytest.raises(ValueError, match='holds no tokenizer'): influence_cli(**args, out=folder/'c', tokenizer=folder/'docs.jsonl')

def test_mistakes_come_without_a_trace(folder, command):
    done = command(model=folder/'gpt2', docs=folder/'queries.jsonl', queries=folder/'nothing')
    assert done.returncode != 0 and 'proc-nb-influence: ' in done.stderr and 'Traceback' not in done.stderr

@pytest.mark.parametrize('name, part', [('docs', 2), ('queries', 2), ('docs', 30)])
def test_scores_are_never_shown_beside_another_text(folder, name, part):
    args = dict(model=folder/'gpt2', docs=folder/'docs.jsonl', queries=folder/'queries.jsonl', out=folder/'out', part=part, top=2, fit_rows=4)
    influence_cli(**args)
    file = folder/f'{name}.jsonl'
    *lines, last = file.read_text(encoding='utf-8').split('\n') # not among the rows of the fit
    new = last.replace('": "', '": "tree ') if name == 'docs' else last.replace('3', '9')
    assert new != last
    file.write_text('\n'.join([*lines, new]), encoding='utf-8')
    with pytest.raises(ValueError, match=f'{name}_sha256 was'): influence_cli(**args)
    (folder/'out/about.json').unlink()
    with pytest.raises(ValueError, match='scores of other weights, queries, documents'): influence_cli(**args)

def test_another_tokenizer_is_another_run(folder):
    args = dict(model=folder/'gpt2', docs=folder/'docs.jsonl', queries=folder/'queries.jsonl', out=folder/'out')
    influence_cli(**args)
    file = folder/'gpt2/tokenizer.json'
    file.write_text(file.read_text(encoding='utf-8').replace('"cat"', '"hat"').replace('"dog"', '"cat"'), encoding='utf-8')
    with pytest.raises(ValueError, match='sha256 was'): influence_cli(**args)

def test_a_turned_bit_is_no_result(folder):
    args = dict(model=folder/'gpt2', docs=folder/'docs.jsonl', queries=folder/'queries.jsonl', out=folder/'out')
    influence_cli(**args)
    for file, at in ((folder/'out/about.json', 30), (folder/'out/scores-00000.safetensors', -5), (folder/'out/factors.safetensors', -5)):
        was = file.read_bytes()
        bad = bytearray(was)
        bad[at] ^= 1
        file.write_bytes(bad)
        with pytest.raises(ValueError, match='is damaged|belongs to another run'): influence_cli(**args)
        file.write_bytes(was)
    influence_cli(**args)

def test_factors_of_other_rows_are_refused(g, tmp_path):
    task, model = trained(steps=2)
    rows, others = task.sample(20, g), task.sample(20, g)
    EKFAC(model).fit(rows, path=tmp_path/'f.safetensors')
    assert EKFAC(model).fit([rows], path=tmp_path/'f.safetensors').about['stage'] == 'fitted'
    for b in (others, rows[:19], everywhere(rows)):
        with pytest.raises(ValueError, match='rows_sha256 was'): EKFAC(model).fit(b, path=tmp_path/'f.safetensors')

def test_what_is_not_finite_is_said(g):
    b = rows_of(g)
    class Large(Twice):
        "Finite gradients whose products are not"
        def forward(self, tokens, at=None):
            x = self.a(self.emb(tokens) * 1e20) * 1e-20
            return (x if at is None else x[at]) @ self.out.weight.T
    for f in (lambda: GradDot(Large(), 'a').scores(b, b), lambda: GradDot(Large(), 'a').norms(b)): assert f().isfinite().all() # the factors cancel
    class Larger(Large):
        def forward(self, tokens, at=None): return super().forward(tokens, at) * 1e20
    with pytest.raises(FloatingPointError, match='not finite'): GradDot(Larger(), 'a').norms(b)
    flat = EKFAC(Twice(), 'a', damping=0).fit(b)
    flat.state['a.L'][0] = 0
    with pytest.raises(ValueError, match='cannot be inverted with a damping of 0'): flat.scores(b, b)

def test_the_forecast_knows_how_many_rows_are_fitted(g):
    task, model = trained(steps=2)
    rows = task.sample(32, g)
    few, all_rows = (estimate(EKFAC(model), rows, 10**9, 2, fitted=n).fit_seconds for n in (32, None))
    assert 0 < few < all_rows / 10**4

def test_no_query_is_left_out(folder):
    from proc_nb.influence.cli import _files, open_model
    net, encode = open_model(folder/'gpt2')
    (folder/'many').write_text('{"tokens": [1, 2]}\n' * 100_001, encoding='utf-8')
    asked = _files(net, encode, folder/'docs.jsonl', folder/'many')[1]
    assert len(asked) == len(next(iter(asked))) == 100_001

def test_ranks_share_ties():
    a, b = torch.tensor([[3., 1, 3, 2, 3]]), torch.tensor([[1., 1, 2, 2, 9]])
    ranks = [[3, 0, 3, 1, 3], [.5, .5, 2.5, 2.5, 4]] # deviations 1 -2 1 -1 1 and -1.5 -1.5 .5 .5 2; products 3.5, squares 8 and 9
    assert float(spearman(a, b)) == pytest.approx(3.5 / 72 ** .5, abs=1e-6)
    assert float(spearman(*(torch.tensor([r]) for r in ranks))) == pytest.approx(3.5 / 72 ** .5, abs=1e-6)
    assert spearman(a, torch.ones(1, 5)).isnan().all() and spearman(a, a).item() == pytest.approx(1)

def rows_of_removal(library, seed, rise, questions=20):
    "A removal in which all questions rise together, as they do when one network answers them"
    return [dict(family='f', method=m, library=library, seed=seed, losses=[x + q / 10 for q in range(questions)]) for m, x in (('random', 1.), ('EK-FAC', 1. + rise))]

def test_questions_of_one_network_are_one_measurement():
    from proc_nb.influence.validation import damage
    (one,) = damage(rows_of_removal(0, 0, 2.))
    assert one['mean'] == pytest.approx(2) and one['lo'] is None and one['n'] == 1
    (starts,) = damage(rows_of_removal(0, 0, 2.) + rows_of_removal(0, 1, 3.))
    assert (starts['n'], starts['unit']) == (2, 'start') and starts['lo'] < 0 < 5 < starts['hi']
    rows = [r for l in range(4) for s in (0, 1) for r in rows_of_removal(l, s, 1. + l + s)]
    (found,) = damage(rows)
    assert (found['n'], found['unit']) == (4, 'library')
    assert (found['mean'], found['lo'], found['hi']) == pytest.approx(student([1.5, 2.5, 3.5, 4.5]))

def test_intervals_of_lds_hold_what_they_promise():
    "Chance in a training moves all questions together: subsets are drawn again, not questions"
    effects = torch.randn(10, 30, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    def experiment(seed, m=12):
        g, subsets = torch.Generator().manual_seed(seed), random_subsets(30, m, seed=seed)
        return subsets, -(effects @ subsets.double().T).T + 3 * torch.randn(m, 1, generator=g) + torch.randn(m, 10, generator=g)
    truth = float(lds(effects, *experiment(1000, 4000)).mean())
    def held(interval): return sum(lo < truth < hi for _, lo, hi in (interval(*experiment(s)) for s in range(60)))
    assert held(lambda s, l: student(lds_pseudo(effects, s, l))) >= 52 # of 60
    assert held(lambda s, l: student(lds(effects, s, l).tolist())) < 48 # as it was

def test_a_pickled_folder_is_refused(folder):
    import transformers
    net = transformers.GPT2LMHeadModel.from_pretrained(folder/'gpt2')
    torch.save(net.state_dict(), folder/'gpt2/pytorch_model.bin')
    (folder/'gpt2/model.safetensors').unlink()
    with pytest.raises(ValueError, match='pickled .bin files, which are never read'):
        influence_cli(model=folder/'gpt2', docs=folder/'docs.jsonl', queries=folder/'queries.jsonl', out=folder/'out')

HOSTILE = ['·', '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', '</style><svg onload=alert(1)>', "' onmouseover='alert(1)", '&lt;b&gt;', '{{x}}', '|', 'a']

def test_hostile_words_stay_text(g):
    from html.parser import HTMLParser
    from proc_nb.influence.panel import Explorer, Traced
    rows = padded_rows([[1, 2, 3, 2, 1, 5, 8], *torch.randint(1, 9, (11, 7), generator=g).tolist()], [3] * 12)
    rows.task = Rows(rows)
    rows.task.token_names = HOSTILE
    model = GPT(GPTConfig(vocab_size=9, block_size=8, n_embd=8, n_head=2), seed=0)
    traced = Traced(EKFAC(model).fit(rows), rows[:2], rows, kinds=[HOSTILE[1 + i % 8] for i in range(12)], families=HOSTILE[1:3])
    pages = [traced._repr_html_(), traced.picture(1, by_length=True).markup, Explorer(traced).page.value]
    seen = []
    class Reads(HTMLParser):
        def handle_starttag(self, tag, attrs): seen.append((tag, dict(attrs)))
    for page in pages:
        Reads().feed(page)
        assert '&lt;script&gt;alert(1)' in page and '&lt;img src=x' in page
    assert {'span', 'td', 'svg'} <= {t for t, _ in seen} and not 'script' in {t for t, _ in seen}
    assert all(a['src'].startswith('data:image/svg+xml;base64,') for t, a in seen if t == 'img') # our own pictures
    assert not [a for _, attrs in seen for a in attrs if a.startswith('on')]

KILLED = """
import os, signal, sys, torch
from proc_nb.all import *
class Dies:
    def __init__(self, parts): self.parts, self.seen = parts, 0
    def __iter__(self):
        for b in self.parts:
            self.seen += 1
            if self.seen == int(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)
            yield b
rows = Identity(length=5, n_symbols=8).sample(200, torch.Generator().manual_seed(0))
model = GPT(GPTConfig(vocab_size=rows.task.vocab_size, block_size=rows.task.seq_len, n_embd=8, n_head=2), seed=0)
EKFAC(model).fit(Dies([rows[i:i+20] for i in range(0, 200, 20)]), rows=20, path=sys.argv[1], every=2)
"""

@pytest.mark.skipif(sys.platform == 'win32', reason='there is no SIGKILL on Windows')
def test_a_killed_fit_goes_on(tmp_path):
    path = tmp_path/'factors.safetensors'
    for when in (16, 25): # after the sum of the rows: in the first round, then in the second
        done = subprocess.run([sys.executable, '-c', KILLED, path, str(when)], capture_output=True, text=True, timeout=120)
        assert done.returncode == -9 and path.exists(), done.stderr
    rows = Identity(length=5, n_symbols=8).sample(200, torch.Generator().manual_seed(0))
    model = GPT(GPTConfig(vocab_size=rows.task.vocab_size, block_size=rows.task.seq_len, n_embd=8, n_head=2), seed=0)
    parts = [rows[i:i+20] for i in range(0, 200, 20)]
    whole_fit, resumed = EKFAC(model).fit(parts, rows=20), EKFAC(model).fit(parts, rows=20, path=path)
    assert all(torch.equal(v, resumed.state[k]) for k, v in whole_fit.state.items())

@pytest.mark.parametrize('name', ['influence_study', 'influence_checks', 'influence_bridge'])
def test_stored_studies_say_how_they_are_made_again(name):
    "Their commands import what they call, call it as it is now, and name what the file holds"
    import ast, inspect
    kept, space = stored(name), {}
    tree = ast.parse(kept['about']['command'])
    for node in tree.body:
        if isinstance(node, ast.ImportFrom): exec(ast.unparse(node), space)
    calls = [c for c in ast.walk(tree) if isinstance(c, ast.Call) and c.func.id in space]
    for c in calls: inspect.signature(space[c.func.id]).bind(*c.args, **{k.arg: k.value for k in c.keywords})
    assert calls and {n.targets[0].id for n in tree.body if isinstance(n, ast.Assign)} == {*kept} - {'about', 'sum'}
