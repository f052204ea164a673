"Numbers as people have them: NumPy's, very large seeds, and those that make no sense."
import json, math
import numpy as np, pytest
from proc_nb.all import *
from proc_nb.tasks.core import seeded
from proc_nb.viz.probes import sharpen
from proc_nb.train.loss import score

SEEDS = 0, 10**10, 10**13, 2**63 - 1
TINY = dict(steps=2, batch_size=4, eval_every=2, eval_rows=20)

@pytest.fixture
def task(): return Identity(length=3, n_symbols=9)

def net(task, **kwargs): return GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, n_embd=8, n_head=2, **kwargs))

@pytest.mark.parametrize('seed', SEEDS)
def test_any_seed_will_do(task, seed):
    "For rows, weights, dropout, scores and probes; the same seed as a NumPy number is the same seed"
    for s in {seed, np.int64(seed)}:
        model = GPT(GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, n_embd=8, n_head=2, dropout=.1), seed=s)
        losses = [r.loss for r in fit(model, task, seed=s, **TINY)]
        evaluate(model, task, 20, seed=s), score(model, task, n=20, seed=s)
        assert list(fit_many([net(task)], task, seeds=[s], **TINY))
        sharpen(model, task, 0., seed=s, most=1)
        if s is seed: first = losses
    assert losses == first

def test_seeds_far_apart_are_different(task):
    "What is too long for 64 bits wraps round, and does not meet its neighbours"
    drawn = {tuple(task.sample(2, seeded(s, step)).tokens.flatten().tolist()) for s in (*SEEDS, 1, 10**10 + 1) for step in range(3)}
    assert len(drawn) == 18

@pytest.mark.parametrize('seed', [-1, 2**63, .5, '3', True, None])
def test_what_is_no_seed_is_told(task, seed):
    for f in (lambda: list(fit(net(task), task, seed=seed, **TINY)), lambda: list(fit_many([net(task)], task, seeds=[seed], **TINY)),
        lambda: evaluate(net(task), task, 20, seed=seed)):
        with pytest.raises(ValueError, match='seed must be a whole number from 0 to'): f()

def test_sizes_may_come_out_of_numpy(task):
    "And what is made with them is written down like any other"
    length, n = np.array([3, 9])
    same = Identity(length=length, n_symbols=n)
    assert repr(same) == repr(task) and json.dumps(same.settings) == json.dumps(task.settings)
    cfg = GPTConfig(vocab_size=np.int64(12), block_size=np.int32(11), n_embd=np.uint8(8), n_head=np.int16(2))
    assert json.dumps(vars(cfg)) and GPT(cfg)(same.sample(2, seeded(0)).tokens).shape[0] == 2
    assert task.sample(np.int64(5), seeded(0)).tokens.shape == (5, 7)

def test_rates_may_come_out_of_numpy(task, tmp_path):
    how = {k: np.int64(v) for k, v in dict(steps=2, batch_size=4, warmup=1, eval_every=2, eval_rows=20).items()}
    how.update(lr=np.float32(1e-3), lr_scale=dict(tok=np.float64(2)), weight_decay=np.float32(0), clip=np.float32(1))
    assert len(list(fit(net(task), task, run_dir=tmp_path/'one', **how))) == 2
    both = [net(task), net(task)]
    assert len(list(fit_many(both, task, run_dir=tmp_path/'many', seeds=np.arange(2), **{**how, 'lr': np.array([1e-3, 2e-3]), 'clip': np.array([1., 2.])}))) == 2
    assert json.loads(json.dumps([r.to_dict() for r in Study(['identity'], parts=['attn'], tests=['haystack'], seeds=np.int64(2), steps=np.int64(3), lr=np.float32(1e-3)).runs]))

WRONG = dict(lr=[-1e-3, 0, math.nan, math.inf, '1e-3', True], lr_scale=[dict(tok=-1)], clip=[0, -1, math.nan],
    warmup=[-5, 1.5], batch_size=[0, 2.], weight_decay=[-1, math.inf], steps=[0], eval_every=[0], eval_rows=[0], decay_steps=[0, None])
@pytest.mark.parametrize('name, odd', [(k, v) for k, vs in WRONG.items() for v in vs])
def test_settings_that_make_no_sense_are_told(task, name, odd):
    kwargs = {**TINY, 'schedule': 'linear', 'decay_steps': 9, name: odd}
    for f in (lambda: list(fit(net(task), task, **kwargs)), lambda: list(fit_many([net(task)], task, **kwargs))):
        with pytest.raises(ValueError, match=f'{name}.* must '): f()

def test_an_infinite_clip_leaves_gradients_as_they_are(task): assert len(list(fit(net(task), task, clip=math.inf, **TINY))) == 2
