"EK-FAC agrees with an independent implementation, reads foreign models, and refuses what it cannot do."
import time
from copy import deepcopy
import pytest, torch, torch.nn as nn, torch.nn.functional as F
from proc_nb.all import *
from proc_nb.influence import *

def trained(n_embd=16, steps=200, **kwargs):
    task = Identity(length=6, n_symbols=12, lengths='fixed')
    model = GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, n_embd=n_embd, **kwargs), seed=0)
    for _ in fit(model, task, steps=steps, lr=5e-3, warmup=20, eval_every=steps, eval_rows=10): pass
    return task, model

def cut(batch): return Batch(*(x[:, :-1] for x in (batch.tokens, batch.targets, batch.loss_mask)), task=batch.task)

def everywhere(batch): return Batch(batch.tokens, batch.targets, torch.ones_like(batch.loss_mask), task=batch.task)

def kron(model, folder, train, queries, damping=None):
    "kronfluence's scores on the same rows, and the seconds that fitting and scoring took"
    pytest.importorskip('kronfluence', reason='pip install --no-deps kronfluence')
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task as KronTask
    names = list(pick_layers(model))
    class Copying(KronTask):
        def compute_train_loss(self, batch, model, sample=False):
            logits, labels = model(batch[0]).flatten(0, 1), batch[1].flatten()
            if sample: labels = logits.detach().softmax(-1).multinomial(1).flatten()
            return F.cross_entropy(logits, labels, reduction='sum')
        def compute_measurement(self, batch, model): return self.compute_train_loss(batch, model)
        def get_influence_tracked_modules(self): return names
    data = [torch.utils.data.TensorDataset(b.tokens, b.targets) for b in (train, queries)]
    task = Copying()
    a = Analyzer('a', prepare_model(deepcopy(model), task), task, cpu=True, output_dir=str(folder), disable_tqdm=True)
    begun = time.perf_counter()
    a.fit_all_factors('f', data[0], per_device_batch_size=64, factor_args=FactorArguments(strategy='ekfac', use_empirical_fisher=True), overwrite_output_dir=True)
    fitted = time.perf_counter()
    a.compute_pairwise_scores('s', 'f', data[1], data[0], per_device_query_batch_size=64, per_device_train_batch_size=64,
        score_args=ScoreArguments(damping_factor=damping), overwrite_output_dir=True)
    done = time.perf_counter()
    return a.load_pairwise_scores('s')['all_modules'], fitted - begun, done - fitted

@pytest.mark.parametrize('damping', [None, 1e-3])
def test_kronfluence_gives_the_same_scores(tmp_path, g, damping):
    task, model = trained()
    train, queries = (everywhere(cut(task.sample(n, g, split=s))) for n, s in ((256, 'train'), (16, 'validation')))
    theirs, *_ = kron(model, tmp_path, train, queries, damping)
    ours = EKFAC(model, damping=damping).fit(train, fisher='empirical').scores(queries, train)
    r = torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten().float()]))[0, 1]
    print(f'correlation {r:.6f}, largest difference {float((ours - theirs).abs().max() / theirs.abs().max()):.1e}')
    assert r > .999 and torch.allclose(ours, theirs.float(), atol=1e-3 * float(theirs.abs().max()))

@pytest.mark.full
def test_not_slower_than_kronfluence(tmp_path, g):
    task = Identity(length=30, n_symbols=99, lengths='fixed')
    model = GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, n_layer=4, n_embd=128), seed=0)
    train, queries = (everywhere(cut(task.sample(n, g))) for n in (1024, 64))
    ratios = []
    for k in range(3):
        _, fit_k, score_k = kron(model, tmp_path / str(k), train, queries)
        begun = time.perf_counter()
        e = EKFAC(model).fit(train, fisher='empirical')
        fitted = time.perf_counter()
        e.scores(queries, train)
        ratios.append((fit_k / (fitted - begun), score_k / (time.perf_counter() - fitted)))
    fit_ratio, score_ratio = (sorted(r)[1] for r in zip(*ratios))
    print(f'kronfluence / ours, median of 3: fit {fit_ratio:.2f}, scores {score_ratio:.2f}')
    assert score_ratio >= 1

@pytest.fixture
def gpt2():
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=30, n_positions=16, n_embd=12, n_layer=2, n_head=2))

def test_gpt2_of_transformers(gpt2, g):
    model = Foreign(gpt2)
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
