"Randomness is a parameter: nothing draws from PyTorch's global generator, and no other thread changes what a seed gives."
import copy, random, re, threading
import numpy as np, pytest, torch, torch._dynamo
from contextlib import contextmanager, nullcontext
from pathlib import Path
from torch.utils._python_dispatch import TorchDispatchMode
from pretend_cuda import Gpu
from proc_nb.all import *
from proc_nb.models.attention import attend, Attention, Dropout, dropout_from
from proc_nb.models.gpt import drawn_twice
from proc_nb.models.wired import hardwire, time_heads
from proc_nb.train.ensemble import Ensemble
from proc_nb.dev import limits, ways
from proc_nb.language.model import language_model
from proc_nb.language.plan import Plan, engine, peak_flops
from proc_nb.language.lm_run import LMRun
from proc_nb.tasks.core import seeded
from proc_nb.tasks.controls import warm_task
from proc_nb.train.practice import practise, race

ROOT = Path(__file__).parent.parent
TEST = Haystack(n_pairs=3)

class Watch(TorchDispatchMode):
    "Raises for a draw that names no generator"
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.Tag.nondeterministic_seeded in func.tags and (kwargs or {}).get('generator') is None:
            p = [x for x in args if isinstance(x, float)] if re.search('dropout|attention', str(func)) else [1.] # a share of 0 draws nothing
            if any(p): raise AssertionError(f'{func} draws from the global generator')
        return func(*args, **(kwargs or {}))

@contextmanager
def nothing_global(monkeypatch):
    "No draw from a global source, not even one that is put back afterwards"
    def states(): return torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    before = states()
    def touched(*args, enabled=True, **kwargs):
        if enabled: raise AssertionError('the global generator was set')
        return nullcontext()
    with monkeypatch.context() as m, Watch():
        for name in 'manual_seed', 'seed', 'set_rng_state': m.setattr(torch, name, touched)
        for name in 'manual_seed', 'seed', 'set_rng_state', 'fork_rng': m.setattr(torch.random, name, touched)
        yield
    after = states()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]

def cfg(task=TEST, **kw): return GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, **kw)
def trained(**kw): return list(fit(GPT(cfg(**kw)), TEST, 2, 8, eval_every=2, eval_rows=20))
def lm(**kw): return language_model(GPTConfig(TEST.vocab_size, TEST.seq_len, 2, 4, 16, **kw, tied=True))
def lm_steps(**kw):
    run = LMRun(lm(**kw), TEST, engine('cpu'), batch_size=4)
    return [run.step() for _ in range(2)]
def wired(): return hardwire(GPT(cfg(LEGO, causal=False)))
LEGO = tasks['lego'](n_vars=3, n_supervised=3)

CALLS = dict(
    gpt=lambda: GPT(cfg(), seed=5), tied=lambda: GPT(cfg(tied=True), seed=10**15), reader=lambda: GPT(cfg(LEGO, causal=False, shared=True)), wired=wired, lm=lm,
    plan=lambda: Plan(GPTConfig(TEST.vocab_size, TEST.seq_len, 2, 4, 16, tied=True), 3, 4, 4), peak=peak_flops,
    fit=lambda: trained(), dropout=lambda: trained(dropout=.3, tied=True),
    fit_many=lambda: list(fit_many([GPT(cfg(dropout=.3), seed=s) for s in range(2)], TEST, 2, 8, eval_rows=20)),
    start=lambda: start('identity', TEST, 'attn', seed=3), race=lambda: list(race('identity', {'a': ('attn', 'random')}, TEST, 2, [0], batch_size=8)),
    practise=lambda: [r for _, r in zip(range(2), practise('identity', length=3, n_symbols=9)[1])],
    perturb=lambda: perturb(GPT(cfg()), 'noise', torch.Generator().manual_seed(0)), score=lambda: score(GPT(cfg(dropout=.3)), TEST, n=20),
    write=lambda: GPT(cfg(dropout=.3)).generate(torch.zeros(2, 2, dtype=torch.int64), 3, 1., torch.Generator().manual_seed(0)),
    look=lambda: GPT(cfg(dropout=.3)).attention(torch.zeros(2, 2, dtype=torch.int64)),
    mimic=lambda: mimic(GPT(cfg(LEGO, causal=False, dropout=.3)), LEGO, steps=2), learn_lego=lambda: list(fit(wired(), LEGO, 2, 8, eval_rows=20)),
    heads=lambda: time_heads(16, B=2, tries=1), language=lambda: lm_steps(dropout=.3), again=lambda: lm_steps(dropout=.3, remat=True),
    influence=lambda: EKFAC(GPT(cfg(dropout=.3))).fit(TEST.sample(8, torch.Generator().manual_seed(0))),
    study=lambda: Study([Identity(3, n_symbols=9)], ['attn'], [TEST], seeds=1, steps=2, batch_size=8, practice_steps=2, controls=['sharpened', 'noise 0.3']).run(progress=False),
    bench=lambda: (ways.plain(TEST, cfg(), 4)(1), limits.peaks(tries=1)), trees=lambda: [t().sample(3, torch.Generator().manual_seed(0)) for t in tasks.values()])

@pytest.mark.parametrize('name', CALLS)
def test_nothing_global_is_touched(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with nothing_global(monkeypatch): CALLS[name]()

def test_the_watch_sees_what_it_should(monkeypatch):
    for f in lambda: torch.rand(2), lambda: torch.nn.Linear(2, 2), lambda: torch.nn.functional.dropout(torch.ones(3), .5), lambda: torch.manual_seed(0):
        with pytest.raises(AssertionError, match='global generator'), nothing_global(monkeypatch): f()

def test_the_source_names_no_global_generator():
    "Exceptions: course.py tries answers of learners, which may draw as they like; rivals in the benchmark are other people's programs"
    found = []
    for file in sorted((ROOT/'proc_nb').rglob('*.py')):
        for i, line in enumerate(file.read_text('utf-8').splitlines(), 1):
            draws = re.search(r'torch\.(rand|randn|randint|randperm|multinomial)\(|\.(normal_|uniform_|bernoulli_|random_|multinomial)\(', line)
            if draws and 'generator' not in line and '**rand' not in line and 'draw' not in line: found.append((file.name, i, line.strip()))
            if re.search(r'(torch|random)\.manual_seed|fork_rng|nn\.init\.|np\.random\.(?!default_rng)|[^.\w]random\.(random|randint|shuffle|choice)\(', line): found.append((file.name, i, line.strip()))
    left = [(f, l) for f, _, l in found if f != 'course.py']
    assert left == [('gpt.py', 'if p.dim() > 1: p.normal_(0, .02 / ((2 * n_layer) ** .5 if name.endswith(\'c_proj.weight\') else 1))')], left

# ---- one seed, one set of weights: the numbers of earlier versions

def sums(m): return [float(p.detach().double().sum()) for p in (m.wte.weight, m.wpe.weight, m.h[-1].attn.c_attn.weight, m.h[-1].mlp.c_proj.weight, m.lm_head.weight)]

PINNED = dict(gpt=(lambda: GPT(GPTConfig(), seed=3), [2.19777, -.31291, .75432, -.07486, .78674]),
    reader=(lambda: drawn_twice(GPTConfig(causal=False), 3, Attention), [1.86356, .07746, .3651, -.01346, 2.37016]),
    shared=(lambda: drawn_twice(GPTConfig(causal=False, shared=True), 3, Attention), [1.1142, .30548, .69518, .19742, .05059]),
    wired=(lambda: hardwire(drawn_twice(GPTConfig(causal=False), 3, Attention)), [1.86356, .07746, .33478, -.01346, 2.37016]),
    lm=(lambda: language_model(GPTConfig(tied=False), seed=3), [2.44888, .24569, -.05141, .39544, .17672]),
    tied=(lambda: language_model(GPTConfig(tied=True), seed=3), [2.44888, .24569, -.05141, .39544, 2.44888]),
    start=(lambda: start('identity', tasks['haystack'](n_pairs=5), 'attn', seed=7), [-1.05398, -.09364, -2.32256, -.33187, .21766]))

@pytest.mark.parametrize('name', PINNED)
def test_a_seed_gives_the_weights_it_always_gave(name):
    make, want = PINNED[name]
    assert sums(make()) == pytest.approx(want, abs=2e-4)

# ---- other threads

@contextmanager
def busy():
    "A run with dropout in another thread, for as long as this lasts"
    stop = threading.Event()
    def go():
        for _ in fit(GPT(cfg(dropout=.1)), TEST, 10**9, 4, eval_every=10**9):
            if stop.is_set(): return
    thread = threading.Thread(target=go)
    thread.start()
    try: yield
    finally:
        stop.set()
        thread.join()

def test_a_run_in_another_thread_changes_no_weights():
    makes = [lambda: GPT(cfg(), seed=0), lambda: start('identity', TEST, 'attn', seed=1), lambda: GPT(cfg(LEGO, causal=False), seed=2), lambda: lm()]
    want = [f().state_dict() for f in makes]
    with busy():
        for _ in range(40):
            for f, w in zip(makes, want): assert all(torch.equal(v, w[k]) for k, v in f().state_dict().items())

def test_a_run_in_another_thread_changes_no_results(tmp_path):
    study = Study([Identity(3, n_symbols=9)], ['attn'], [TEST], seeds=2, steps=30, batch_size=8, practice_steps=20)
    def figures(out): return {r['id']: (r['accuracy'], r['curve']) for r in study.run(out, progress=False)}
    def losses(): return [r.loss for r in fit(GPT(cfg(dropout=.2), seed=1), TEST, 20, 8, eval_every=20, eval_rows=20)]
    alone = figures(tmp_path/'alone'), losses()
    with busy(): assert (figures(tmp_path/'beside'), losses()) == alone

# ---- dropout

def test_dropout_in_a_run_is_that_of_seed_and_step():
    def losses(seed, **kw): return [r.loss for r in fit(GPT(cfg(dropout=.2), seed=1), TEST, 6, 8, seed=seed, eval_every=6, eval_rows=20, **kw)]
    torch.manual_seed(1)
    first = losses(0)
    torch.rand(3)
    assert losses(0) == first != losses(1)

def test_a_model_at_rest_holds_no_generator():
    model = GPT(cfg(dropout=.2))
    for rec in fit(model, TEST, 2, 8, eval_rows=20): copy.deepcopy(model)
    assert all(m.generators == [None] for m in model.modules() if isinstance(m, Dropout))

@pytest.mark.parametrize('tied', [False, True])
def test_members_drop_what_they_would_drop_alone(tied):
    task = Identity(4, n_symbols=9)
    alone, many = ([GPT(cfg(task, dropout=.2, tied=tied), seed=s) for s in range(3)] for _ in range(2))
    for s, m in enumerate(alone): list(fit(m, task, 10, 8, seed=s + 5, warmup=0, eval_rows=20))
    list(fit_many(many, task, 10, 8, seeds=[5, 6, 7], warmup=0, eval_rows=20))
    for a, b in zip(alone, many):
        for (k, p), q in zip(a.named_parameters(), b.parameters()):
            if not k.endswith('c_attn.bias'): torch.testing.assert_close(p, q, atol=1e-5, rtol=0)

def test_members_are_tested_without_dropout():
    models = [GPT(cfg(dropout=.9), seed=s) for s in range(2)]
    for m in models: list(fit(m, TEST, 60, 32, lr=1e-2, warmup=0, eval_every=60, eval_rows=20))
    want = [evaluate(m, TEST, 300) for m in models]
    net = Ensemble(models)
    assert evaluate_many(net, TEST, 300) == pytest.approx(want, abs=.004) and net.training

def test_activations_computed_twice_drop_the_same():
    tokens = torch.randint(TEST.vocab_size, (4, TEST.seq_len), generator=torch.Generator().manual_seed(0))
    grads = []
    for remat in False, True:
        model = lm(dropout=.3, remat=remat)
        with dropout_from(model, [torch.Generator().manual_seed(5)]): model(tokens).logsumexp(-1).sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads): torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)

def test_attention_with_dropout_is_right_on_average():
    q, k, v = torch.randn(3, 1, 2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drop = Dropout(.3)
    with dropout_from(drop, [torch.Generator().manual_seed(0)]): mean = sum(attend(q, k, v, drop=drop) for _ in range(4000)) / 4000
    torch.testing.assert_close(mean, attend(q, k, v), atol=.08, rtol=0)

@pytest.mark.parametrize('name', [k for k in tasks if k != 'lego'])
def test_rows_do_not_depend_on_what_pytorch_makes_by_default(name):
    task = tasks[name]()
    want = task.sample(30, seeded(4))
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device('meta')
        got = tasks[name]().sample(30, seeded(4))
        kept = task.check(got.tokens) if type(task).valid is not Task.valid else None
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert torch.equal(got.tokens, want.tokens) and torch.equal(got.loss_mask, want.loss_mask)
    assert kept is None or (kept.device.type == 'cpu' and kept.all())

def test_a_mixture_with_shares_is_drawn_on_the_device_of_its_generator():
    with Gpu():
        task = warm_task('set+union', 6)
        got, want = task.rows(20, seeded(0, device='cuda')), task.rows(20, seeded(0))
        assert all(a.is_cuda and torch.equal(a.cpu(), b) for a, b in zip(got, want))
