"Every branch for a GPU, on a pretend one: the same numbers as on a CPU, recorded where that is promised, and no waiting on the way."
import gc, threading, warnings, weakref
import pytest, torch, torch.nn as nn
from pretend_cuda import Gpu
from proc_nb.dev import ways
from proc_nb.train import ensemble
from proc_nb.models import attention as gpt
from proc_nb.all import *
from proc_nb.lego.heads import accuracy_by_place
from proc_nb.lego.reader import enlarge
from proc_nb.models.wired import hardwire
from proc_nb.results import machine
from proc_nb.tasks.core import first_rows, rows_to_draw, seeded, split_of, SPLITS, Streams
from proc_nb.train.ensemble import Ensemble, ManyRun
from proc_nb.cuda_graph import replayed
from proc_nb.language.model import language_model
from proc_nb.language.plan import engine
from proc_nb.language.lm_run import LMRun
from proc_nb.study.jobs import Store
from proc_nb.study.plan import JobQueue, members_that_fit, step_seconds
from proc_nb.study.table import SMALL as NETWORK
from proc_nb.train.loop import Run
from proc_nb.train.workers import pick_device
from proc_nb.train.practice import practise

@pytest.fixture
def gpu():
    with warnings.catch_warnings(), Gpu() as g:
        warnings.filterwarnings('error', 'No CUDA graph')
        yield g

NEEDLE, COPY = Haystack(n_pairs=3), Identity(3, n_symbols=9)
LEGO = tasks['lego'](n_vars=3, n_supervised=3)
SMALL = dict(haystack=dict(n_pairs=3), dyck=dict(k=3, seq_len=8), dyck_shuffle=dict(k=3, seq_len=8), stack=dict(length=4, n_symbols=9), eca=dict(length=8), addition=dict(digits=2), lego=dict(n_vars=3, n_supervised=3),
    reversed_addition=dict(digits=2), multiplication=dict(digits=2), shuffled=dict(rule='identity'), random_tokens={}, mixture=dict(rules=[['identity', dict(length=3)], ['set', dict(length=3)]]))
def small(name): return tasks[name](**SMALL.get(name, dict(length=4) if name in tasks.rules else {}))
def cfg(task, **kw): return GPTConfig(vocab_size=task.vocab_size, block_size=task.seq_len, **kw)
def losses(model, task, device, steps=4, **kw): return [float(r.loss) for r in fit(model.to(device), task, steps, 8, eval_every=steps, eval_rows=20, **kw)]
SET = dict(batch_size=8, lr=1e-3, lr_scale=None, freeze=(), weight_decay=1e-3, clip=1., warmup=0, schedule='constant', decay_steps=None)
def run_of(task, device='cuda', **kw): return Run(GPT(cfg(task, **kw)).to(device), task, seed=0, **SET)
def many_of(task, n=3, device='cuda', **kw): return ManyRun([GPT(cfg(task, **kw), seed=i).to(device) for i in range(n)], task, seeds=range(n), **SET)

# ---- the pretend GPU itself

def test_the_pretend_gpu_refuses_what_a_gpu_refuses(gpu):
    a, b, c = torch.ones(3), torch.ones(3, device='cuda'), torch.ones(3, device='cuda:1')
    assert (a.device.type, b.device, c.device, (b + 1).is_cuda, b[:2].is_cuda, b.cpu().is_cuda) == ('cpu', torch.device('cuda:0'), torch.device('cuda:1'), True, True, False)
    for x, y in (a, b), (b, c):
        with pytest.raises(RuntimeError, match='same device'): x + y
    with pytest.raises(RuntimeError, match="Expected a 'cuda:0' device type"): torch.rand(3, device='cuda', generator=torch.Generator())
    gpu.reset()
    float(b.sum()), b[b > 0], b.tolist(), b[torch.tensor([0])], torch.tensor([1.], device='cuda')
    assert gpu.waited == 5
    b.add_(1).mul_(2)
    assert gpu.waited == 5
    for f in lambda: b.sum().item(), lambda: b[b > 0], lambda: torch.rand(3, device='cuda', generator=torch.Generator('cuda')), lambda: torch.tensor([1.], device='cuda'):
        with pytest.raises(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode='thread_local'): f()
    with Gpu(largest=10), pytest.raises(torch.OutOfMemoryError): torch.ones(11, device='cuda')

# ---- rows

@pytest.mark.parametrize('name', list(tasks))
def test_rows_are_drawn_without_waiting(name, gpu):
    task, g = tasks[name](), seeded(3, device='cuda')
    cpu = seeded(3)
    for i in range(4):
        gpu.reset()
        b = task.sample(40, g)
        want = task.sample(40, cpu)
        assert b.tokens.is_cuda and torch.equal(b.tokens.cpu(), want.tokens) and torch.equal(b.loss_mask.cpu(), want.loss_mask)
        if i < 2: continue
        assert not [w for w in gpu.waits if 'copy from cuda' not in w], gpu.waits # but for the two lines above
        assert gpu.launches < 200

def test_long_walks_are_recorded(gpu):
    for name, longest in (('dyck', 256), ('dyck_shuffle', 128), ('stack', None)):
        task, g = tasks[name](**dict(seq_len=longest) if longest else {}), seeded(0, device='cuda')
        for _ in range(3): task.sample(2, g)
        gpu.reset()
        task.sample(2, g)
        assert gpu.launches < 120 and gpu.replays > 0 and gpu.captures == 0

def test_a_task_with_few_rows_is_drawn_as_on_a_cpu(gpu):
    class Few(Task):
        "Numbers, of which fewer than usual are training rows"
        def __init__(self): self.seq_len, self.pad, self.token_names = 2, 0, [str(i) for i in range(40)]
        def rows(self, n, generator):
            x = torch.randint(1, 8, (n, 2), generator=generator, device=generator.device)
            x[:, 1] = 1
            return x, torch.tensor([[True, False]], device=x.device).expand(n, 2)
    task = Few()
    share = float((split_of(torch.tensor([[i, 1] for i in range(1, 8)]), 0) == 2).float().mean())
    got, want = task.sample(30, seeded(0, device='cuda')), task.sample(30, seeded(0))
    assert torch.equal(got.tokens.cpu(), want.tokens) and task.plenty is (share > .85)

def test_too_few_rows_come_again():
    task = Haystack(n_pairs=3)
    want = task.sample(300, seeded(1)).tokens
    drawn = task.batch(rows_to_draw(300, 'train'), seeded(1))
    assert torch.equal(first_rows(drawn, 300, 'train').tokens, want)
    rare = first_rows(drawn, 300, 'test').tokens # one row in sixteen of 392
    assert len(rare) == 300 and set(split_of(rare, task.pad).tolist()) == {SPLITS['test']} and len(rare.unique(dim=0)) < 40

# ---- a run

@pytest.mark.parametrize('name', ['haystack', 'identity', 'dyck', 'mixture', 'lego'])
def test_a_run_is_recorded_and_is_the_same(name, gpu):
    task = small(name)
    assert losses(GPT(cfg(task)), task, 'cuda') == pytest.approx(losses(GPT(cfg(task)), task, 'cpu'), abs=1e-5)
    run = run_of(task)
    for _ in range(3): run.step()
    gpu.reset()
    run.step()
    assert gpu.replays >= 1 and gpu.captures == 0 and not gpu.waits

MODELS = dict(reader=lambda: GPT(cfg(LEGO, causal=False)), shared=lambda: GPT(cfg(LEGO, causal=False, shared=True)), wired=lambda: hardwire(GPT(cfg(LEGO, causal=False))), wired_gpt=lambda: hardwire(GPT(cfg(LEGO))),
    tied=lambda: GPT(cfg(LEGO, tied=True)), lm=lambda: language_model(GPTConfig(LEGO.vocab_size, LEGO.seq_len, 2, 4, 16, tied=True)))

@pytest.mark.parametrize('name', MODELS)
def test_every_kind_of_network_is_recorded(name, gpu):
    assert losses(MODELS[name](), LEGO, 'cuda') == pytest.approx(losses(MODELS[name](), LEGO, 'cpu'), abs=1e-5)
    assert gpu.captures == 1

def test_a_language_model_learns_the_needle(gpu):
    def new(): return language_model(GPTConfig(NEEDLE.vocab_size, NEEDLE.seq_len, 2, 4, 16, tied=True))
    assert losses(new(), NEEDLE, 'cuda') == pytest.approx(losses(new(), NEEDLE, 'cpu'), abs=1e-5)

def test_dropout_and_what_is_computed_twice(gpu):
    assert losses(GPT(cfg(COPY, dropout=.2)), COPY, 'cuda') == pytest.approx(losses(GPT(cfg(COPY, dropout=.2)), COPY, 'cpu'), abs=1e-5)
    assert gpu.captures == 0

def test_the_second_gpu(gpu):
    assert losses(GPT(cfg(NEEDLE)), NEEDLE, 'cuda:1') == pytest.approx(losses(GPT(cfg(NEEDLE)), NEEDLE, 'cpu'), abs=1e-5)
    assert (gpu.captures, gpu.current) == (1, 0)

CLOCKS = {'the bench': lambda: ways.now('cuda:1'), 'a study': lambda: step_seconds(NEEDLE, 4, dict(n_layer=1), 1, 'cuda:1')}
@pytest.mark.parametrize('name', CLOCKS)
def test_every_clock_waits_for_the_gpu_that_works(name, gpu, monkeypatch):
    waited = []
    def synchronize(device=None): waited.append(str(device))
    monkeypatch.setattr(torch.cuda, 'synchronize', synchronize)
    CLOCKS[name]()
    assert waited and set(waited) == {'cuda:1'}

def test_what_is_named_is_the_gpu_that_works(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device=None: f'card of {device}')
    assert machine('cuda:1')['hardware'] == 'card of cuda:1'

@pytest.mark.parametrize('gone', ['cuda:7', 'cuda:2', 'cpu:1', 'meta'])
def test_a_gpu_that_is_not_there(gone, gpu, tmp_path):
    for ask in pick_device, lambda d: engine(d), lambda d: JobQueue(Study('identity', steps=1).runs, Store(tmp_path), d):
        with pytest.raises(ValueError, match='not available here'): ask(gone)
    assert str(pick_device('cuda:1')) == 'cuda:1'
    with pytest.raises(ValueError, match='CUDA_VISIBLE_DEVICES=1'): engine('cuda:1')

def test_stopped_on_a_gpu_and_gone_on_with(gpu, tmp_path):
    once, twice = GPT(cfg(NEEDLE)).to('cuda'), GPT(cfg(NEEDLE)).to('cuda')
    list(fit(once, NEEDLE, 6, 8, eval_rows=20))
    for n in 3, 6: list(fit(twice, NEEDLE, n, 8, eval_rows=20, run_dir=tmp_path, resume=True))
    for p, q in zip(once.parameters(), twice.parameters()): assert torch.equal(p, q)

def test_a_finished_run_is_let_go(gpu):
    graphs, made = [], torch.cuda.CUDAGraph
    class Seen(made):
        def __init__(self):
            super().__init__()
            graphs.append(weakref.ref(self))
    torch.cuda.CUDAGraph = Seen
    gc.collect()
    gc.disable()
    try:
        for r in fit(GPT(cfg(NEEDLE)).to('cuda'), NEEDLE, 4, 8, eval_rows=20): pass
        run = many_of(NEEDLE)
        for _ in range(3): run.step()
        del run
        assert len(graphs) == 2 and not any(g() for g in graphs)
    finally:
        gc.enable()
        torch.cuda.CUDAGraph = made

# ---- a network of one's own is asked as on a CPU

class Own(nn.Module):
    "Takes a mask, always, and notes what it is asked"
    def __init__(self):
        super().__init__()
        self.e, self.o, self.asked = nn.Embedding(256, 8), nn.Linear(8, 256), []
    def forward(self, tokens, at):
        self.asked.append((tokens.shape, at.dtype, at.shape))
        return self.o(self.e(tokens))[at]

class Sub(GPT):
    "A GPT whose own forward pass knows masks only"
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked = []
    def forward(self, tokens, at=None):
        self.asked.append((tokens.shape, None if at is None else at.dtype, None if at is None else at.shape))
        x = self.lm_head(self.ln_f(self.stream(tokens)))
        return x if at is None else x[at]

@pytest.mark.parametrize('make', [Own, lambda: Sub(cfg(NEEDLE))])
def test_a_network_of_ones_own_is_asked_as_on_a_cpu(make, gpu):
    def whole(batch): return [batch]
    models = [make(), make()]
    models[1].load_state_dict(models[0].state_dict())
    for m in models: m.causal = False # no groups by length on a CPU either
    assert losses(models[1], NEEDLE, 'cuda') == pytest.approx(losses(models[0], NEEDLE, 'cpu'), abs=1e-5)
    assert models[0].asked == models[1].asked and {a[1] for a in models[1].asked} == {torch.bool} and gpu.captures == 0

def test_a_hook_sees_every_step(gpu):
    seen, model = [], GPT(cfg(NEEDLE))
    model.h[0].register_forward_hook(lambda m, i, o: seen.append(1))
    losses(model, NEEDLE, 'cuda', steps=5)
    assert len(seen) == 6 and gpu.captures == 0

def test_a_recording_that_fails_is_told_once_and_the_run_goes_on(monkeypatch):
    with Gpu() as gpu:
        def broken(self, tokens, past=0):
            if gpu.tape is not None: raise TypeError('not in a recording')
            return embed(self, tokens, past)
        embed = GPT.embed
        monkeypatch.setattr(GPT, 'embed', broken)
        with warnings.catch_warnings(record=True) as said: got = losses(GPT(cfg(NEEDLE)), NEEDLE, 'cuda')
        assert [str(w.message)[:38] for w in said if 'No CUDA graph' in str(w.message)] == ['No CUDA graph: not in a recording. The']
        assert got == pytest.approx(losses(GPT(cfg(NEEDLE)), NEEDLE, 'cpu'), abs=1e-5)

# ---- many networks

@pytest.mark.parametrize('name', list(tasks))
def test_rows_of_several_streams_are_drawn_together(name, gpu):
    task = small(name)
    streams, alone = Streams(task, [seeded(i, device='cuda') for i in range(4)]), [seeded(i, device='cuda') for i in range(4)]
    for _ in range(3):
        got, want = streams.sample(7), [task.sample(7, g) for g in alone]
        for k in 'tokens', 'targets', 'loss_mask', 'score_mask': assert torch.equal(getattr(got, k), torch.cat([getattr(b, k) for b in want]))
    gpu.reset()
    streams.sample(7)
    assert streams.together or not task.plenty
    if streams.together: assert not gpu.waits and gpu.launches < 220

def test_sixty_four_streams_take_few_launches(gpu):
    streams = Streams(Haystack(), [seeded(i, device='cuda') for i in range(64)])
    for _ in range(2): streams.sample(16)
    gpu.reset()
    streams.sample(16)
    assert gpu.launches < 400 and not gpu.waits

class Sorted(Identity):
    "A rule of one's own that looks at all rows"
    def rows(self, n, generator):
        tokens, mask = super().rows(n, generator)
        order = tokens[:, 0].argsort(stable=True)
        return tokens[order], mask[order]

@pytest.mark.parametrize('task', [Sorted(3, n_symbols=9), Haystack(n_pairs=3)])
def test_streams_that_cannot_be_drawn_together(task, gpu):
    streams, alone = Streams(task, [seeded(i, device='cuda') for i in range(3)]), [seeded(i, device='cuda') for i in range(3)]
    if isinstance(task, Haystack): task.rows = lambda n, g: tuple(x.flip(0) for x in Haystack.rows(task, n, g)) # seen by the comparison
    for _ in range(2): assert torch.equal(streams.sample(5).tokens, torch.cat([task.sample(5, g).tokens for g in alone]))
    assert streams.together is False

@pytest.mark.parametrize('name', ['haystack', 'identity', 'dyck'])
@pytest.mark.parametrize('kw', [{}, dict(tied=True), dict(dropout=.2)])
def test_members_on_a_gpu(name, kw, gpu):
    task = small(name)
    a, b = many_of(task, device='cpu', **kw), many_of(task, **kw)
    for _ in range(4): torch.testing.assert_close(b.step().cpu(), a.step(), atol=1e-5, rtol=0)
    torch.testing.assert_close(b.net.weights.cpu(), a.net.weights, atol=3e-4, rtol=0)
    assert evaluate_many(b.net, task, 40) == pytest.approx(evaluate_many(a.net, task, 40), abs=1e-6)
    assert b.captured is None if kw.get('dropout') else len(b.captured.tapes) == 1
    gpu.reset()
    b.step()
    assert not gpu.waits and gpu.captures == 0

def test_members_are_tested_in_few_pieces(gpu, monkeypatch):
    calls, forward = [], Ensemble.forward
    monkeypatch.setattr(Ensemble, 'forward', lambda self, *a, **k: calls.append(1) or forward(self, *a, **k))
    evaluate_many(many_of(NEEDLE, 8).net, NEEDLE, 1000)
    assert len(calls) == 1

def test_too_little_memory_on_the_first_step():
    with Gpu(largest=40_000):
        run = ManyRun([GPT(cfg(NEEDLE), seed=i).to('cuda') for i in range(2)], NEEDLE, seeds=range(2), **{**SET, 'batch_size': 256})
        with warnings.catch_warnings(record=True) as said: got = [run.step().cpu() for _ in range(2)]
        told = [str(w.message) for w in said]
        assert any('No CUDA graph: CUDA out of memory' in t for t in told) and any('going on with' in t for t in told)
    plain = ManyRun([GPT(cfg(NEEDLE), seed=i) for i in range(2)], NEEDLE, seeds=range(2), **{**SET, 'batch_size': 256})
    for g in got: torch.testing.assert_close(g, plain.step(), atol=1e-5, rtol=0)

def test_what_did_not_fit_is_let_go_before_the_next_attempt(monkeypatch):
    run, held, real = many_of(NEEDLE, 1, 'cpu'), [], ensemble.backward_many
    def tight(net, batch, size):
        assert not any(h() is not None for h in held), 'the attempt before is still in memory'
        big = torch.zeros(1000)
        held.append(weakref.ref(big))
        if len(held) < 3: raise torch.OutOfMemoryError('CUDA out of memory')
        return real(net, batch, size)
    monkeypatch.setattr(ensemble, 'backward_many', tight)
    gc.disable()
    try:
        with pytest.warns(UserWarning, match='going on with'): assert run.step().isfinite().all()
    finally: gc.enable()
    assert len(held) == 3

def test_more_rows_than_older_kernels_take(gpu):
    model = GPT(GPTConfig(vocab_size=5, block_size=2, n_layer=1, n_head=1, n_embd=2)).to('cuda')
    tokens = torch.zeros(gpt.MOST_ROWS + 3, 2, dtype=torch.int64, device='cuda')
    at = torch.ones(len(tokens), dtype=torch.int64, device='cuda')
    with torch.no_grad(): assert len(model(tokens, at=at)) == len(tokens) and model(tokens).shape == (len(tokens), 2, 5)

# ---- a function that is replayed

def test_replayed_functions_are_of_their_thread_shape_and_settings(gpu):
    @replayed
    def sums(x, *, power): return x.pow(power).cumsum(0)
    def check(n, power, repeat=3):
        for i in range(repeat):
            x = torch.arange(n, device='cuda') + i
            assert sums(x, power=power).tolist() == torch.arange(n).add(i).pow(power).cumsum(0).tolist()
    for n in 3, 4:
        for power in 1, 2: check(n, power)
    assert gpu.captures == 4
    thread = threading.Thread(target=check, args=(3, 1))
    thread.start()
    thread.join()
    assert gpu.captures == 5
    for n in range(5, 30): check(n, 1, 2)
    before = gpu.captures
    check(3, 1)
    assert gpu.captures == before + 1 # only the latest are kept

# ---- what is built on it

def test_from_start_to_score(gpu, tmp_path):
    model = start('identity', NEEDLE, ['attn', 'pos'], seed=1, device='cuda')
    other = start('identity', NEEDLE, ['attn', 'pos'], seed=1)
    assert all(torch.equal(p.cpu(), q) for p, q in zip(model.parameters(), other.parameters()))
    assert score(model, NEEDLE, n=40) == score(other, NEEDLE, n=40) and evaluate(model, NEEDLE, 40) == evaluate(other, NEEDLE, 40)
    rows = NEEDLE.sample(3, seeded(0)).tokens[:, :3]
    assert torch.equal(model.generate(rows.to('cuda'), 4).cpu(), other.generate(rows, 4))
    save_model(model, tmp_path/'m.safetensors')
    assert torch.equal(load_model(tmp_path/'m.safetensors').wte.weight, other.wte.weight)
    transfer(other, model, 'mlp')
    perturb(model, 'noise', seeded(0, device='cuda'), 'attn')
    net, records = practise('identity', device='cuda', length=3, n_symbols=9, steps=3)
    assert [r.step for r in records] == [1, 2, 3]

def test_a_study_and_a_race_on_a_gpu(gpu, tmp_path):
    def study(): return Study([COPY], ['attn'], [NEEDLE], seeds=2, steps=4, batch_size=8, practice_steps=4)
    a, b = (study().run(tmp_path/d, device=d, progress=False) for d in ('cpu', 'cuda'))
    assert len(a) == len(b) == 4 and {r['id']: round(r['accuracy'], 2) for r in a} == {r['id']: round(r['accuracy'], 2) for r in b}
    assert len(study().run(tmp_path/'cuda', device='cuda', progress=False)) == 4
    ends = [rec for _, _, rec in race('identity', {'a': ('attn', 'random')}, NEEDLE, 4, [0], 'cuda', batch_size=8, eval_every=2)]
    assert len(ends) == 4 and gpu.captures >= 3 # practices, tests, race

def grid(): return Study([COPY, small('reverse')], ['attn', 'all'], [NEEDLE], seeds=2, steps=4, batch_size=8, practice_steps=4)

# a practice has 64 rows a step, a test 8: where three tests fit, one practice does
@pytest.mark.parametrize('members,sizes,practices', [(3, [3, 3, 3, 1], [1, 1, 1, 1]), (50, [10], [2, 2])])
def test_groups_of_a_study_are_as_large_as_the_memory_allows(members, sizes, practices, gpu, tmp_path, monkeypatch):
    def free(n): monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda *device: (n, n))
    free(2**40)
    one = 2**39 / members_that_fit(NEEDLE, 8, NETWORK, 'cuda')
    free(int(2 * one * (members + .5)))
    queue = JobQueue(grid().runs, Store(tmp_path), 'cuda')
    assert [len(g) for g in queue.tests] == sizes and [len(g) for g in queue.practices] == practices
    assert {len(g) for g in JobQueue(grid().runs, Store(tmp_path), 'cuda', members=1).waiting} == {1}

def test_a_group_whose_first_step_does_not_fit_is_divided(tmp_path, monkeypatch):
    def accuracies(table): return {r['id']: r['accuracy'] for r in table}
    with Gpu() as gpu:
        whole = grid().run(tmp_path/'whole', device='cuda', progress=False)
        real = ManyRun.update
        def tight(run, batch):
            gpu.largest = 50_000 # less than the weights of ten networks
            try: return real(run, batch)
            finally: gpu.largest = None
        monkeypatch.setattr(ManyRun, 'update', tight)
        with pytest.warns(UserWarning, match='10 networks at once do not fit'): halves = grid().run(tmp_path/'halves', device='cuda', progress=False)
    assert {r['members'] for r in whole} == {10} and {r['members'] for r in halves} == {2, 3}
    assert accuracies(halves) == pytest.approx(accuracies(whole), abs=.02)

def test_a_lab_on_a_gpu(gpu, tmp_path):
    from proc_nb.lab.transfer_lab import TransferLab
    def lab(device, **kw): return TransferLab('identity', 'haystack', device=device, steps=3, batch_size=8, out=tmp_path/device, **kw)
    assert [lab(d).args.task().n_pairs for d in ('cpu', 'cuda')] == [10, 10] # the same lesson, found within its steps
    labs = [lab(d, n_pairs=3) for d in ('cpu', 'cuda')]
    labs[0].run()
    labs[1].start() # in a thread of its own
    labs[1].runner.thread.join(120)
    assert [(l.state, l.runner.error) for l in labs] == [('finished', None)] * 2
    a, b = ([(k, r['step'], r['accuracy']) for k, rows in l.runs[-1].lines.items() for r in rows] for l in labs)
    assert [x[:2] for x in a] == [x[:2] for x in b] and all(abs(x[2] - y[2]) < .02 for x, y in zip(a, b))

def test_reading_lego_on_a_gpu(gpu):
    a, b = (enlarge(GPT(cfg(LEGO, causal=False)), 3).to(d) for d in ('cpu', 'cuda'))
    mimic(a, LEGO, steps=2), mimic(b, LEGO, steps=2)
    assert accuracy_by_place(b, LEGO, 50) == pytest.approx(accuracy_by_place(a, LEGO, 50), abs=.03)

def test_a_step_of_a_language_model(gpu):
    class Engine:
        "What a run needs of accelerate, on one device"
        num_processes, process_index, is_main_process, device = 1, 0, True, torch.device('cuda', 0)
        def prepare(self, model, opt): return model.to(self.device), opt
        def backward(self, l): l.backward()
        def no_sync(self, m): raise AssertionError
        def clip_grad_norm_(self, ps, c): return nn.utils.clip_grad_norm_(ps, c)
        def unwrap_model(self, m): return m
    for kw in {}, dict(dropout=.2), dict(dropout=.2, remat=True):
        run = LMRun(language_model(GPTConfig(NEEDLE.vocab_size, NEEDLE.seq_len, 2, 4, 16, tied=True, **kw)), NEEDLE, Engine(), batch_size=4, warmup=1)
        assert all(l < 10 for l in (run.step(), run.step()))
